//! What can be wrong with a remote, worded once.

use super::address::{Address, Place};
use super::objects::Trouble;
use crate::CacheError;
use crate::store::CACHE_FORMAT;

/// A remote cannot be used. Whatever was carried over before stays.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The text is not the URL of a remote.
    #[error("`{url}` is not a remote: {reason}")]
    BadUrl {
        /// The text.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The remote did not do what was asked.
    #[error("cannot {action} {}the remote `{remote}`: {reason}", of_object(object))]
    Failed {
        /// Its URL.
        remote: String,
        /// "read", "write".
        action: &'static str,
        /// The object, empty for the remote itself.
        object: String,
        /// What the remote or the network said.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Nothing was ever sent to the remote.
    #[error("the remote `{remote}` holds no results: it has no `VERSION`")]
    Empty {
        /// Its URL.
        remote: String,
    },
    /// The folder holds other things and no `VERSION` of ours.
    #[error("the remote `{remote}` is not a spdflow cache: it holds `{found}` but no `VERSION`")]
    Foreign {
        /// Its URL.
        remote: String,
        /// The first thing found in it.
        found: String,
    },
    /// The `VERSION` is not one of ours.
    #[error(
        "the remote `{remote}` is not a spdflow cache: expected the `VERSION` `spdflow-cache {CACHE_FORMAT}`, found `{found}`"
    )]
    BadVersion {
        /// Its URL.
        remote: String,
        /// The first line of its `VERSION`.
        found: String,
    },
    /// The remote was written by a later spdflow.
    #[error("the remote `{remote}` has format {found}, but this spdflow reads format {CACHE_FORMAT}")]
    Newer {
        /// Its URL.
        remote: String,
        /// The format it says it has.
        found: u32,
    },
    /// The cache on this side cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The user wanted to stop.
    #[error("the transfer was stopped")]
    Stopped,
}

fn of_object(object: &str) -> String {
    if object.is_empty() { String::new() } else { format!("`{object}` of ") }
}

impl RemoteError {
    pub(super) fn of(address: &Address, action: &'static str, object: &str, trouble: Trouble) -> Self {
        let (reason, hint) = match trouble {
            Trouble::Stopped => return Self::Stopped,
            Trouble::Local(error) => (error.to_string(), None),
            Trouble::Unreachable(reason) => (reason, Some(unreachable_hint(address))),
            Trouble::Denied(reason) => (reason, denied_hint(address, action)),
            Trouble::NoPlace(reason) => {
                (reason, Some("check the name in the URL; nothing is created there".to_owned()))
            }
            // Web servers have many ways to say that they do not take anything.
            Trouble::Other(reason) if *address.place() == Place::Http && action == "write" => {
                (reason, denied_hint(address, action))
            }
            Trouble::Other(reason) => (reason, None),
        };
        let (remote, object) = (address.shown().to_owned(), object.to_owned());
        Self::Failed { remote, action, object, reason, hint }
    }

    /// Returns whether something could not be written: what is there may be of use all the same.
    #[must_use]
    pub fn is_of_writing(&self) -> bool {
        matches!(self, Self::Failed { action: "write", .. })
    }

    /// Returns what to do about it, when we know.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::BadUrl { .. } => Some(
                "name a folder, or give a URL: `file:///…`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, \
                 `az://CONTAINER/PREFIX`, `https://…`"
                    .to_owned(),
            ),
            Self::Failed { hint, .. } => hint.clone(),
            Self::Empty { .. } => Some("check the URL; `spdflow cache push` sends results there".to_owned()),
            Self::Foreign { .. } => Some("name an empty or new folder".to_owned()),
            Self::BadVersion { .. } => Some("name another place, or restore its `VERSION`".to_owned()),
            Self::Newer { .. } => Some("use a newer spdflow, or another remote".to_owned()),
            Self::Cache(error) => error.hint(),
            Self::Stopped => None,
        }
    }
}

fn unreachable_hint(address: &Address) -> String {
    let where_to = match address.place() {
        Place::S3 => "; the server is the one of `AWS_ENDPOINT`, else Amazon's of `AWS_REGION`",
        Place::Google => "; the server is the one of `GOOGLE_BASE_URL`, else Google's",
        Place::Azure => "; the server is the one of `AZURE_STORAGE_ACCOUNT_NAME` or `AZURE_STORAGE_ENDPOINT`",
        Place::Http | Place::Folder(_) => "",
    };
    format!("check the URL and the network, and try again: what has arrived is not sent twice{where_to}")
}

fn denied_hint(address: &Address, action: &str) -> Option<String> {
    match address.place() {
        Place::S3 => Some("set `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` of somebody who may".to_owned()),
        Place::Google => Some("set `GOOGLE_APPLICATION_CREDENTIALS` to the key file of somebody who may".to_owned()),
        Place::Azure => {
            Some("set `AZURE_STORAGE_ACCOUNT_NAME` and `AZURE_STORAGE_ACCOUNT_KEY` of somebody who may".to_owned())
        }
        Place::Http => {
            Some("most web servers can be read only: use `cache pull`, or `run --remote-read-only`".to_owned())
        }
        Place::Folder(_) => (action == "write").then(|| {
            "somebody who may has to let you write there; to take results, use `cache pull`, or `run --remote-read-only`"
                .to_owned()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_only_read_a_folder_is_told_how_to_use_it_so() {
        let address = Address::parse("there").expect("a folder");
        let denied = |action| RemoteError::of(&address, action, "VERSION", Trouble::Denied("no".to_owned()));
        assert_eq!(denied("read").hint(), None);
        let error = denied("write");
        assert_eq!(error.to_string(), "cannot write `VERSION` of the remote `there`: no");
        let hint = "somebody who may has to let you write there; to take results, use `cache pull`, or `run --remote-read-only`";
        assert_eq!(error.hint().as_deref(), Some(hint));
    }
}
