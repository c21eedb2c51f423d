//! Any text as a pipeline file: it is a pipeline, or a report of mistakes that can be shown.
#![no_main]

use std::io;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use spdflow_engine::spec::{self, Files, LoadOptions};

/// The text under every name but that of a base, so that no file of this machine is read.
struct Only<'a>(&'a str);

impl Files for Only<'_> {
    fn read(&self, path: &Path) -> io::Result<String> {
        if path == Path::new("p.toml") { Ok(self.0.to_owned()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn read_bytes(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

fuzz_target!(|text: &str| {
    let options = LoadOptions { files: &Only(text), ..LoadOptions::default() };
    match spec::load(Path::new("p.toml"), &options, &spdflow_stages::registry()) {
        Ok(pipeline) => assert!(pipeline.instances.iter().all(|instance| !instance.id.to_string().is_empty())),
        Err(report) => assert!(!report.to_string().is_empty()),
    }
});
