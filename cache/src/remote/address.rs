//! From what the user wrote to a place: a path is a folder, anything with `://` a URL.

use std::path::PathBuf;

use super::RemoteError;
use super::folder::Folder;
use super::objects::Objects;

/// Where a remote is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    place: Place,
    /// What the user wrote, for servers.
    url: String,
    shown: String,
}

/// What kind of place it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Folder(PathBuf),
    /// Amazon S3, or a server that speaks its language.
    S3,
    Google,
    Azure,
    /// A web server; one with WebDAV can be written to.
    Http,
}

impl Address {
    /// Reads what the user wrote.
    pub(super) fn parse(text: &str) -> Result<Self, RemoteError> {
        let shown = without_secrets(text);
        let wrong = |reason: &str| RemoteError::BadUrl { url: shown.clone(), reason: reason.to_owned() };
        let Some((scheme, rest)) = text.split_once("://") else {
            if text.trim().is_empty() {
                return Err(wrong("it is empty"));
            }
            // `s3:/bucket` would be a folder called `s3:`, which nobody means.
            if let Some((scheme, _)) = text.split_once(":/").filter(|(scheme, _)| place(scheme).is_some()) {
                return Err(wrong(&format!("expected `{scheme}://`")));
            }
            return Ok(Self { place: Place::Folder(PathBuf::from(text)), url: text.to_owned(), shown });
        };
        let place = match place(scheme) {
            None => return Err(wrong(&format!("`{scheme}` is not a scheme that spdflow knows"))),
            Some(Place::Folder(_)) => match decoded(rest).filter(|path| path.starts_with('/')) {
                Some(path) => Place::Folder(PathBuf::from(path)),
                None => return Err(wrong("expected a path from the root behind `file://`")),
            },
            Some(_) if rest.starts_with('/') || rest.is_empty() => {
                return Err(wrong("expected the name of a server, bucket or container behind `://`"));
            }
            Some(place) => place,
        };
        Ok(Self { place, url: text.trim_end_matches('/').to_owned(), shown })
    }

    /// Returns what kind of place it is.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Returns the URL as people may see it.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Returns the URL as it was written.
    #[cfg(feature = "remotes")]
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Returns what keeps the objects there.
    pub(super) fn objects(&self) -> Result<Box<dyn Objects>, RemoteError> {
        match &self.place {
            Place::Folder(path) => Ok(Box::new(Folder::new(path.clone()))),
            #[cfg(feature = "remotes")]
            _ => Ok(Box::new(super::server::Server::new(self.clone())?)),
            #[cfg(not(feature = "remotes"))]
            _ => {
                let reason = "this spdflow was built without its feature `remotes` and knows folders only";
                Err(RemoteError::BadUrl { url: self.shown.clone(), reason: reason.to_owned() })
            }
        }
    }
}

/// Returns what a scheme stands for.
fn place(scheme: &str) -> Option<Place> {
    match scheme.to_ascii_lowercase().as_str() {
        "file" => Some(Place::Folder(PathBuf::new())),
        "s3" | "s3a" => Some(Place::S3),
        "gs" => Some(Place::Google),
        "az" | "adl" | "azure" | "abfs" | "abfss" => Some(Place::Azure),
        "http" | "https" => Some(Place::Http),
        _ => None,
    }
}

/// Returns a URL without password and query, which may hold a signature. Web servers take a user without a password for
/// a token; `container@account` of Azure is none.
fn without_secrets(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (server, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let server = match server.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((name, _)) => format!("{name}@{host}"),
            None if matches!(place(scheme), Some(Place::Http)) => host.to_owned(),
            None => server.to_owned(),
        },
        None => server.to_owned(),
    };
    format!("{scheme}://{server}{path}")
}

/// Returns a path with `%20` and the like replaced by what they stand for.
fn decoded(path: &str) -> Option<String> {
    let mut parts = path.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Address {
        Address::parse(text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_path_is_a_folder_and_a_url_what_its_scheme_says() {
        let folder = |path: &str| Place::Folder(PathBuf::from(path));
        for (text, place) in [
            ("shared", folder("shared")),
            ("../a b", folder("../a b")),
            ("/mnt/100%", folder("/mnt/100%")),
            ("file:///mnt/a%20b", folder("/mnt/a b")),
            ("s3://bucket/some/where", Place::S3),
            ("S3://bucket", Place::S3),
            ("gs://bucket/x", Place::Google),
            ("abfss://container@account.dfs.core.windows.net/x", Place::Azure),
            ("https://example.org/results", Place::Http),
        ] {
            assert_eq!(parsed(text).place, place, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_a_remote_is_refused_with_the_reason() {
        let message = |text: &str| Address::parse(text).expect_err("wrong").to_string();
        for (text, expected) in [
            ("", "`` is not a remote: it is empty"),
            ("s3:/bucket", "`s3:/bucket` is not a remote: expected `s3://`"),
            ("s3://", "`s3://` is not a remote: expected the name of a server, bucket or container behind `://`"),
            ("ftp://host/x", "`ftp://host/x` is not a remote: `ftp` is not a scheme that spdflow knows"),
            ("file://host/x", "`file://host/x` is not a remote: expected a path from the root behind `file://`"),
        ] {
            assert_eq!(message(text), expected);
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(parsed("https://me:secret@host:8080/a?sig=secret").shown(), "https://me@host:8080/a");
        assert_eq!(parsed("https://token@host/a").shown(), "https://host/a");
        assert_eq!(parsed("abfs://container@account/x").shown(), "abfs://container@account/x");
    }
}
