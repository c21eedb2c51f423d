//! Runs the binary in a folder of its own and compares everything it says.

pub(crate) mod ledger;
pub(crate) mod object_server;
pub(crate) mod ranks;
pub(crate) mod runs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use tempfile::TempDir;

/// Variables of the tester's own that would change what `spdflow` does.
const UNWANTED: [&str; 19] = [
    "SPDFLOW_CACHE",
    "SPDFLOW_REMOTE",
    "SPDFLOW_SIGNING_KEY",
    "SPDFLOW_SIGNERS",
    "RAYON_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "NO_COLOR",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "RANK",
    "WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "SPDFLOW_RENDEZVOUS",
    "SPDFLOW_RENDEZVOUS_SECONDS",
    "SLURM_PROCID",
    "LOCAL_RANK",
    "SLURM_LOCALID",
    "SPDFLOW_NCCL",
];

/// A folder to run `spdflow` in.
pub(crate) struct Bench {
    folder: TempDir,
}

/// What a run printed and how it ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

impl Bench {
    /// Makes an empty folder.
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::new().expect("a temporary folder") }
    }

    /// Writes a file, and the folders it lies in.
    pub(crate) fn file(self, path: &str, text: impl AsRef<[u8]>) -> Self {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("a new folder");
        std::fs::write(path, text).expect("a new file");
        self
    }

    /// Returns the folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the command `spdflow` with these arguments and nothing of the tester's own settings.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spdflow"));
        command.args(arguments).current_dir(self.path());
        for variable in UNWANTED {
            command.env_remove(variable);
        }
        let clouds = ["AWS_", "AZURE_", "GOOGLE_"];
        for (variable, _) in std::env::vars_os() {
            if clouds.iter().any(|cloud| variable.to_string_lossy().starts_with(cloud)) {
                command.env_remove(variable);
            }
        }
        command
    }

    /// Runs `spdflow` with these arguments.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(self.command(arguments).output().expect("the binary starts"))
    }
}

impl Outcome {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8 output");
        Self { stdout: text(output.stdout), stderr: text(output.stderr), code: output.status.code() }
    }

    /// Asserts everything at once, so that a failure shows the whole outcome.
    #[track_caller]
    pub(crate) fn assert(&self, code: i32, stdout: &str, stderr: &str) {
        assert!(
            self.code == Some(code) && self.stdout == stdout && self.stderr == stderr,
            "expected exit code {code}\n--- stdout\n{stdout}--- stderr\n{stderr}\nfound exit code {:?}\n--- stdout\n{}--- stderr\n{}",
            self.code,
            self.stdout,
            self.stderr,
        );
    }
}

/// Returns every file and folder below `root` with its bytes and the time at which it was changed.
pub(crate) fn snapshot(root: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let (mut seen, mut open) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(path) = open.pop() {
        let metadata = std::fs::symlink_metadata(&path).expect("what was listed");
        let bytes = if metadata.is_dir() {
            open.extend(std::fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
            Vec::new()
        } else {
            std::fs::read(&path).expect("a file")
        };
        seen.insert(path, (bytes, metadata.modified().expect("a time")));
    }
    seen
}

/// Returns a text with what differs from run to run replaced, for comparison with a whole expected text: numbers by
/// `N`, digests by `DIGEST`, units of size by `B`, columns by single spaces.
pub(crate) fn masked(text: &str) -> String {
    let mask = |word: &str| {
        let bare = word.trim_end_matches([',', ':', ')']);
        let rest = &word[bare.len()..];
        let is_hex = bare.chars().all(|c| c.is_ascii_hexdigit());
        let known = match bare {
            _ if is_hex && [12, 40, 64].contains(&bare.len()) => "DIGEST",
            _ if bare.parse::<f64>().is_ok() => "N",
            "KiB" | "MiB" => "B",
            _ => bare,
        };
        format!("{known}{rest}")
    };
    let line = |line: &str| line.split_whitespace().map(mask).collect::<Vec<_>>().join(" ") + "\n";
    text.lines().map(line).collect()
}
