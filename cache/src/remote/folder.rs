//! A folder as a remote: on another disk, on a network file system, or another cache.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::Stop;
use super::objects::{Body, Objects, Trouble};
use crate::Stamp;
use crate::store::FOLDERS;

/// Objects as files. They appear by a rename, as in a cache.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    /// Whether files that killed processes have left were looked for.
    has_cleaned: AtomicBool,
}

/// Where files lie until they are whole.
const TEMPORARY: &str = "tmp";

static NAMES_GIVEN: AtomicU64 = AtomicU64::new(0);

impl Folder {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, has_cleaned: AtomicBool::new(false) }
    }

    fn write_temporary(&self, temporary: &PathBuf, name: &str, body: Body<'_>, stop: Stop<'_>) -> Result<(), Trouble> {
        let ours = |error: io::Error| trouble(&error);
        let mut file = File::create_new(temporary).map_err(ours)?;
        match body {
            Body::Bytes(bytes) => file.write_all(bytes).map_err(ours)?,
            Body::File(path) => {
                let mut source = File::open(path).map_err(Trouble::Local)?;
                pieces(&mut source, stop, &mut |piece| file.write_all(piece))?;
            }
        }
        let mode = if name.starts_with("blobs/") { 0o444 } else { 0o644 };
        file.set_permissions(Permissions::from_mode(mode)).and_then(|()| file.sync_all()).map_err(ours)
    }

    /// Removes what killed processes have left more than a day ago.
    fn remove_old_temporaries(&self) {
        const DAY: Duration = Duration::from_secs(86_400);
        for entry in fs::read_dir(self.root.join(TEMPORARY)).into_iter().flatten().flatten() {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            if modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > DAY)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

impl Objects for Folder {
    fn size(&self, name: &str, _stop: Stop<'_>) -> Result<Option<u64>, Trouble> {
        match fs::metadata(self.root.join(name)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(trouble(&error)),
        }
    }

    fn read(&self, name: &str, stop: Stop<'_>, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<bool, Trouble> {
        let mut file = match File::open(self.root.join(name)) {
            Ok(file) => file,
            Err(error) if is_absent(&error) => return Ok(false),
            Err(error) => return Err(trouble(&error)),
        };
        let mut local = None;
        let read = pieces(&mut file, stop, &mut |piece| {
            take(piece).map_err(|error| {
                let kind = error.kind();
                local = Some(error);
                kind.into()
            })
        });
        match local {
            Some(error) => Err(Trouble::Local(error)),
            None => read.map(|()| true),
        }
    }

    fn write(&self, name: &str, body: Body<'_>, stop: Stop<'_>) -> Result<(), Trouble> {
        let folder = self.root.join(TEMPORARY);
        fs::create_dir_all(&folder).map_err(|error| trouble(&error))?;
        if !self.has_cleaned.swap(true, Ordering::AcqRel) {
            self.remove_old_temporaries();
        }
        // Other machines write here too.
        let number = NAMES_GIVEN.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!("push-{}-{:x}-{number}", std::process::id(), Stamp::now()));
        let place = self.root.join(name);
        let written = self.write_temporary(&temporary, name, body, stop).and_then(|()| {
            let parent = place.parent().unwrap_or(&self.root);
            fs::create_dir_all(parent).and_then(|()| fs::rename(&temporary, &place)).map_err(|error| trouble(&error))
        });
        written.inspect_err(|_| drop(fs::remove_file(&temporary)))
    }

    fn foreign(&self) -> Result<Option<String>, Trouble> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(trouble(&error)),
        };
        let names = entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        let names = names.collect::<Result<Vec<_>, _>>().map_err(|error| trouble(&error))?;
        let is_ours = |name: &String| FOLDERS.contains(&name.as_str()) || name == ".gitignore" || name == "VERSION";
        Ok(names.into_iter().filter(|name| !is_ours(name)).min())
    }
}

/// Reads a file to its end, piece by piece.
fn pieces(file: &mut File, stop: Stop<'_>, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), Trouble> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) if stop() => return Err(Trouble::Stopped),
            Ok(count) => take(&buffer[..count]).map_err(|error| trouble(&error))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(trouble(&error)),
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn trouble(error: &io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Trouble::Denied(error.to_string()),
        _ => Trouble::Other(error.to_string()),
    }
}
