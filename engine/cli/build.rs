//! Tells the binary which commit, sources and compiler made it; records keep all three.
//!
//! The digest of the sources tells builds apart that a commit does not: those with uncommitted changes, and those from a
//! copy outside of version control. It watches the folders of the crates, whose changes make the binary anew in any case.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let rustc = output(Command::new(compiler).arg("--version")).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=SPDFLOW_RUSTC={rustc}");
    println!("cargo::rustc-env=SPDFLOW_GIT_COMMIT={}", commit().unwrap_or_else(|| "unknown".to_owned()));
    println!("cargo::rustc-env=SPDFLOW_SOURCES={}", sources());
    println!("cargo::rerun-if-changed=build.rs");
    // HEAD names a branch or a commit; its log grows with every commit, checkout and reset.
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

fn commit() -> Option<String> {
    // Built from a package or a copy inside somebody else's repository, the commit would be that repository's.
    let root = git(&["rev-parse", "--show-toplevel"])?;
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?.canonicalize().ok()?;
    if Path::new(&root).canonicalize().ok()? != ours {
        return None;
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changes.is_empty() { commit } else { format!("{commit}-dirty") })
}

fn git(arguments: &[&str]) -> Option<String> {
    output(Command::new("git").args(arguments))
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// What a build is made from, below the workspace's folder.
const SOURCES: [&str; 8] = [
    "Cargo.lock",
    "Cargo.toml",
    "cache/Cargo.toml",
    "cache/src",
    "engine",
    "pipelines",
    "stages/Cargo.toml",
    "stages/src",
];
const KERNELS: [&str; 2] = ["stages/kernels/Cargo.toml", "stages/kernels/src"];

/// Returns the digest of the sources: over path and bytes of each file, each preceded by its length (u64, little-endian),
/// in the order of the paths.
fn sources() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("")).to_owned();
    let mut files = Vec::new();
    for source in SOURCES.into_iter().chain(KERNELS) {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
        collect(&root.join(source), &mut files);
    }
    files.sort();
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for file in files {
        let place = file.strip_prefix(&root).unwrap_or(&file).to_string_lossy().into_owned();
        part(place.as_bytes());
        part(&fs::read(&file).unwrap_or_default());
    }
    hasher.finalize().to_hex().to_string()
}

/// Adds the files that lie below `path`, or the file it is.
fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().for_each(|entry| collect(&entry.path(), files)),
        Err(_) if path.is_file() => files.push(path.to_owned()),
        Err(_) => {}
    }
}
