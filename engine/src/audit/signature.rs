//! Signatures of lines of the log of runs, made and checked by OpenSSH's `ssh-keygen -Y`.
//!
//! So the keys people have serve, also those that live in an agent or a token, and anybody can check a signature without
//! spdflow. The namespace is `spdflow`: a signature of something else cannot be taken for one of a run.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What a signature is for, as `ssh-keygen -n` has it.
const NAMESPACE: &str = "spdflow";
const PROGRAM: &str = "ssh-keygen";

/// Why something could not be signed or a signature not be checked.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// OpenSSH is missing.
    #[error("cannot start `ssh-keygen`, which makes and checks signatures: {0}")]
    NoProgram(io::Error),
    /// It refused.
    #[error("`ssh-keygen` cannot sign with `{}`: {reason}", key.display())]
    Refused {
        /// The key.
        key: PathBuf,
        /// What it said.
        reason: String,
    },
}

impl SignatureError {
    /// Returns what to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoProgram(_) => "install OpenSSH 8.9 or later (Debian: `openssh-client`)",
            Self::Refused { .. } => "name a private key, or a public one whose private part is in the agent",
        }
    }
}

/// What a signature proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is one of these bytes, by somebody who may sign: a principal of the file of signers, or if there is none, a key.
    Good {
        /// Who: `alice@example.org`, or `SHA256:…`.
        signer: String,
    },
    /// It is one of these bytes, but by somebody who may not sign, or not then.
    Stranger {
        /// Who, and why not.
        reason: String,
    },
    /// It is not.
    Bad {
        /// Why not.
        reason: String,
    },
}

/// Returns a signature of `message` by the key in the file `key`.
///
/// # Errors
/// [`SignatureError`] if `ssh-keygen` is missing or refuses.
pub fn sign(key: &Path, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
    let mut command = Command::new(PROGRAM);
    command.args(["-Y", "sign", "-n", NAMESPACE, "-f"]).arg(key);
    let output = feed(&mut command, message)?;
    if output.status.success() && !output.stdout.is_empty() {
        return Ok(output.stdout);
    }
    Err(SignatureError::Refused { key: key.to_owned(), reason: said(&output) })
}

/// Checks a signature of `message`; with a file of signers (`man ssh-keygen`, ALLOWED SIGNERS) also whether who made it
/// might sign at `time` (`2026-11-21T22:55:53Z`).
///
/// # Errors
/// [`SignatureError`] if `ssh-keygen` is missing.
pub fn check(signature: &Path, message: &[u8], signers: Option<&Path>, time: &str) -> Result<Verdict, SignatureError> {
    let mut command = Command::new(PROGRAM);
    command.args(["-Y", "check-novalidate", "-n", NAMESPACE, "-s"]).arg(signature);
    let output = feed(&mut command, message)?;
    if !output.status.success() {
        return Ok(Verdict::Bad { reason: said(&output) });
    }
    // `Good "spdflow" signature with ED25519 key SHA256:…`
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let key = text.split_whitespace().last().unwrap_or("an unknown key").to_owned();
    let Some(signers) = signers else { return Ok(Verdict::Good { signer: key }) };

    // As it takes times: 20261121225553.
    let digits: String = time.chars().filter(char::is_ascii_digit).collect();
    let then = format!("-Overify-time={digits}");
    let mut command = Command::new(PROGRAM);
    command.args(["-Y", "find-principals", &then, "-s"]).arg(signature).arg("-f").arg(signers);
    let output = feed(&mut command, &[])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let Some(principal) = text.lines().next().filter(|_| output.status.success()) else {
        let reason = format!("its key {key} is none of those in `{}` that might sign then", signers.display());
        return Ok(Verdict::Stranger { reason });
    };
    let mut command = Command::new(PROGRAM);
    command.args(["-Y", "verify", &then, "-n", NAMESPACE, "-I", principal, "-f"]).arg(signers).arg("-s").arg(signature);
    let output = feed(&mut command, message)?;
    Ok(if output.status.success() {
        Verdict::Good { signer: principal.to_owned() }
    } else {
        Verdict::Stranger { reason: said(&output) }
    })
}

fn feed(command: &mut Command, input: &[u8]) -> Result<Output, SignatureError> {
    // The words it is understood by are English.
    command.env("LC_ALL", "C").env("TZ", "UTC").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(SignatureError::NoProgram)?;
    if let Some(mut pipe) = child.stdin.take() {
        // One that refuses does not read to the end.
        let _ = pipe.write_all(input);
    }
    child.wait_with_output().map_err(SignatureError::NoProgram)
}

fn said(output: &Output) -> String {
    let text = [&output.stderr[..], &output.stdout[..]].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    // The last line is the reason; those before it are greetings, and warnings about modes of files.
    let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    last.unwrap_or("it did not say why").trim_end_matches('\r').to_owned()
}
