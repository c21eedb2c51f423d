//! Objects on a server: Amazon S3 and what speaks its language, Google Cloud Storage, Azure, web servers.
//!
//! The one file that knows the crate `object_store`. Its calls are asynchronous; each of ours blocks its thread until
//! the answer is there, and looks several times a second whether the user wants to stop.

use std::error::Error;
use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Read};
use std::path::Path as FilePath;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientConfigKey, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutPayload, RetryConfig,
    WriteMultipart,
};
use tokio::runtime::{Builder, Runtime};

use super::address::{Address, Place};
use super::objects::{Body, Objects, Trouble};
use super::{RemoteError, Stop};

/// A server, connected to when it is first asked for something.
#[derive(Debug)]
pub(super) struct Server {
    address: Address,
    /// The path that stands before every name.
    prefix: Path,
    connection: Mutex<Option<Arc<Connection>>>,
}

#[derive(Debug)]
struct Connection {
    store: Box<dyn ObjectStore>,
    runtime: Runtime,
}

/// How often it is looked whether the user wants to stop.
const POLL: Duration = Duration::from_millis(100);

/// Larger files are sent in parts, [`PARTS_AT_ONCE`] at a time.
const ONE_PIECE_BYTES: u64 = 16 << 20;
const PART_BYTES: u64 = 8 << 20;
const PARTS_AT_ONCE: usize = 3;

/// S3 takes no more parts than this.
const MOST_PARTS: u64 = 10_000;

impl Server {
    /// Returns the server that a URL names.
    pub(super) fn new(address: Address) -> Result<Self, RemoteError> {
        let wrong = |reason: String| RemoteError::BadUrl { url: address.shown().to_owned(), reason };
        let url = url::Url::parse(address.url()).map_err(|error| wrong(error.to_string()))?;
        let prefix = match address.place() {
            // The store of web servers takes the path as its own.
            Place::Http => Path::default(),
            _ => ObjectStoreScheme::parse(&url).map_err(|error| wrong(error.to_string()))?.1,
        };
        Ok(Self { address, prefix, connection: Mutex::new(None) })
    }

    fn connection(&self) -> Result<Arc<Connection>, Trouble> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = &*connection {
            return Ok(connection.clone());
        }
        let runtime = Builder::new_current_thread().enable_all().build().map_err(Trouble::Local)?;
        // Without asking anybody: something is missing in the environment.
        let store = connect(&self.address).map_err(|error| match trouble(error) {
            Trouble::Other(reason) if *self.address.place() != Place::Http => Trouble::Denied(reason),
            other => other,
        })?;
        let made = Arc::new(Connection { store, runtime });
        *connection = Some(made.clone());
        Ok(made)
    }

    fn place(&self, name: &str) -> Path {
        // Digests, slashes and `VERSION` have nothing to escape.
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// Waits for an answer.
    fn ask<T>(
        &self,
        stop: Stop<'_>,
        question: impl AsyncFnOnce(&dyn ObjectStore) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let connection = self.connection()?;
        connection.runtime.block_on(until_stopped(stop, question(&*connection.store)))
    }
}

impl Objects for Server {
    fn size(&self, name: &str, stop: Stop<'_>) -> Result<Option<u64>, Trouble> {
        let place = self.place(name);
        self.ask(stop, async |store| match store.head(&place).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(trouble(error)),
        })
    }

    fn read(&self, name: &str, stop: Stop<'_>, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<bool, Trouble> {
        let place = self.place(name);
        self.ask(stop, async |store| {
            let mut pieces = match store.get(&place).await {
                Ok(answer) => answer.into_stream(),
                Err(object_store::Error::NotFound { .. }) => return Ok(false),
                Err(error) => return Err(trouble(error)),
            };
            while let Some(piece) = pieces.next().await {
                take(&piece.map_err(trouble)?).map_err(Trouble::Local)?;
            }
            Ok(true)
        })
    }

    fn write(&self, name: &str, body: Body<'_>, stop: Stop<'_>) -> Result<(), Trouble> {
        let place = self.place(name);
        let bytes = match body {
            Body::Bytes(bytes) => bytes.to_vec(),
            Body::File(path) => {
                let size_bytes = fs::metadata(path).map_err(Trouble::Local)?.len();
                // Web servers know no parts.
                if size_bytes > ONE_PIECE_BYTES && *self.address.place() != Place::Http {
                    return self.ask(stop, async |store| write_parts(store, &place, path, size_bytes).await);
                }
                fs::read(path).map_err(Trouble::Local)?
            }
        };
        self.ask(stop, async |store| store.put(&place, PutPayload::from(bytes)).await.map(|_| ()).map_err(trouble))
    }
}

async fn until_stopped<T>(stop: Stop<'_>, answer: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    let mut answer = pin!(answer);
    loop {
        match tokio::time::timeout(POLL, &mut answer).await {
            Ok(answer) => return answer,
            Err(_) if stop() => return Err(Trouble::Stopped),
            Err(_) => {}
        }
    }
}

/// Sends a file in parts; the object appears when the last has arrived.
async fn write_parts(store: &dyn ObjectStore, place: &Path, path: &FilePath, size_bytes: u64) -> Result<(), Trouble> {
    let mut file = File::open(path).map_err(Trouble::Local)?;
    let part_bytes = PART_BYTES.max(size_bytes.div_ceil(MOST_PARTS));
    let upload = store.put_multipart(place).await.map_err(trouble)?;
    let mut upload = WriteMultipart::new_with_chunk_size(upload, usize::try_from(part_bytes).unwrap_or(usize::MAX));
    let sent = async {
        loop {
            let mut part = Vec::new();
            let count = (&mut file).take(part_bytes).read_to_end(&mut part).map_err(Trouble::Local)?;
            if count == 0 {
                return Ok(());
            }
            upload.wait_for_capacity(PARTS_AT_ONCE).await.map_err(trouble)?;
            upload.put(part.into());
        }
    }
    .await;
    match sent {
        Ok(()) => upload.finish().await.map(|_| ()).map_err(trouble),
        Err(error) => {
            // The parts would be kept, and paid for.
            let _ = upload.abort().await;
            Err(error)
        }
    }
}

/// Makes what talks to the server. Everything but the URL comes from the environment.
fn connect(address: &Address) -> object_store::Result<Box<dyn ObjectStore>> {
    // With a provider chosen by somebody else before us, that one is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = address.url();
    // Short, since a run goes on without a remote that does not answer. The time for a whole transfer has no bound, but
    // each answer and each piece of it has.
    let retry = RetryConfig {
        backoff: BackoffConfig { init_backoff: Duration::from_millis(200), ..BackoffConfig::default() },
        max_retries: 3,
        retry_timeout: Duration::from_secs(20),
    };
    let times = [(ClientConfigKey::Timeout, "1day"), (ClientConfigKey::ReadTimeout, "60s")];
    Ok(match address.place() {
        Place::S3 => {
            let builder = AmazonS3Builder::from_env().with_url(url).with_retry(retry);
            let set =
                |builder: AmazonS3Builder, (key, value)| builder.with_config(AmazonS3ConfigKey::Client(key), value);
            Box::new(times.into_iter().fold(builder, set).build()?)
        }
        Place::Google => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(url).with_retry(retry);
            let set = |builder: GoogleCloudStorageBuilder, (key, value)| {
                builder.with_config(GoogleConfigKey::Client(key), value)
            };
            Box::new(times.into_iter().fold(builder, set).build()?)
        }
        Place::Azure => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(url).with_retry(retry);
            let set =
                |builder: MicrosoftAzureBuilder, (key, value)| builder.with_config(AzureConfigKey::Client(key), value);
            Box::new(times.into_iter().fold(builder, set).build()?)
        }
        Place::Http | Place::Folder(_) => {
            // Whoever writes `http://` means it.
            let builder =
                HttpBuilder::new().with_url(url).with_retry(retry).with_config(ClientConfigKey::AllowHttp, "true");
            let set = |builder: HttpBuilder, (key, value): (ClientConfigKey, &str)| builder.with_config(key, value);
            Box::new(times.into_iter().fold(builder, set).build()?)
        }
    })
}

/// Returns what an error means, in the words of whoever noticed it first.
fn trouble(error: object_store::Error) -> Trouble {
    let mut deepest: &dyn Error = &error;
    let mut is_unreachable = false;
    while let Some(source) = deepest.source() {
        if let Some(http) = source.downcast_ref::<HttpError>() {
            is_unreachable |= matches!(http.kind(), HttpErrorKind::Connect | HttpErrorKind::Timeout);
        }
        deepest = source;
    }
    let reason = plain(&deepest.to_string());
    // Who has no credentials is taken for a machine of the provider, which would ask this address for them.
    let asked_for_credentials = ["169.254.169.254", "metadata.google.internal"];
    if asked_for_credentials.iter().any(|server| error.to_string().contains(server)) {
        return Trouble::Denied("no credentials were found".to_owned());
    }
    match error {
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            Trouble::Denied(reason)
        }
        object_store::Error::NotFound { .. } => Trouble::NoPlace(reason),
        _ if is_unreachable => Trouble::Unreachable(reason),
        _ => Trouble::Other(reason),
    }
}

/// Returns the first line of the message in a server's error document, or of a text.
fn plain(text: &str) -> String {
    let between = |open: &str, close: &str| Some(text.split_once(open)?.1.split_once(close)?.0);
    let (code, message) = (between("<Code>", "</Code>"), between("<Message>", "</Message>"));
    let first = message.unwrap_or(text).lines().next().unwrap_or_default();
    // A page for people to look at.
    let first = first.split(": <").next().unwrap_or_default();
    let first: String = first.chars().take(200).collect();
    match (code, message) {
        (Some(code), Some(_)) => format!("{code}: {first}"),
        _ => first,
    }
}
