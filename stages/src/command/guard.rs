//! Ends programs whose spdflow was killed.
//!
//! A process that is killed cannot tell its children, and a program that goes on without us would write into a folder
//! that the next run uses. So a small shell waits at a pipe for our end, however that comes, and then kills the process
//! groups that are still on its list. One shell serves all commands of a run.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

// The shell is in a process group of its own and deaf to what a terminal sends, so that it outlives us.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
live=' '
while read -r what group; do
  case $what in
    +) live="$live$group " ;;
    -) live="${live%% $group *} ${live#* $group }" ;;
  esac
done
for group in $live; do kill -KILL "-$group"; done
"#;

enum Shell {
    NotStarted,
    Listening(ChildStdin),
    /// There is no shell; programs then live on when we are killed, as they do under `make`.
    Absent,
}

static SHELL: Mutex<Shell> = Mutex::new(Shell::NotStarted);

/// A process group that ends with us. Dropping it takes it off the list.
pub(super) struct Guarded {
    group: u32,
}

/// Puts a process group on the list.
pub(super) fn guard(group: u32) -> Guarded {
    tell("+", group);
    Guarded { group }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        tell("-", self.group);
    }
}

fn tell(what: &str, group: u32) {
    let mut shell = SHELL.lock().unwrap_or_else(PoisonError::into_inner);
    if matches!(*shell, Shell::NotStarted) {
        *shell = start().map_or(Shell::Absent, Shell::Listening);
    }
    if let Shell::Listening(pipe) = &mut *shell
        && pipe.write_all(format!("{what} {group}\n").as_bytes()).is_err()
    {
        // Somebody ended the shell; a new one would not know the groups of the old.
        *shell = Shell::Absent;
    }
}

fn start() -> Option<ChildStdin> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SCRIPT]).env_clear().process_group(0);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    child.ok()?.stdin
}
