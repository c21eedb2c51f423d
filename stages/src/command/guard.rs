//! Ends programs whose spdflow was killed.
//!
//! A process that is killed cannot tell its children, and a program that goes on without us would write into a folder
//! that the next run uses. So a small shell waits at a pipe for our end, however that comes, and then kills the process
//! groups that are still on its list. One shell serves all commands of a run.
//!
//! A program has no group before it runs. If we are killed in between, the shell finds it by the folder it starts in.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

// The shell is in a process group of its own and deaf to what a terminal sends, so that it outlives us.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
live=' '
starting=
while read -r what which; do
  case $what in
    '?') starting=$which ;;
    !) starting= ;;
    +) starting= live="$live$which " ;;
    -) live="${live%% $which *} ${live#* $which }" ;;
  esac
done
for group in $live; do kill -KILL "-$group"; done
if [ -n "$starting" ]; then
  sleep 1
  for process in /proc/[0-9]*; do
    if [ "$process/cwd" -ef "$starting" ]; then kill -KILL "-${process#/proc/}"; fi
  done
fi
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

/// Starts `command`, which makes a process group of its own in the folder `start`, and puts that on the list.
///
/// # Errors
/// Those of starting it.
pub(super) fn spawn(command: &mut Command, start: &Path) -> io::Result<(Child, Guarded)> {
    // One at a time: the shell knows of one program that is starting.
    let mut shell = SHELL.lock().unwrap_or_else(PoisonError::into_inner);
    // A line break would end the message; such a folder is not looked for.
    let folder = start.as_os_str().as_bytes();
    let folder = if folder.contains(&b'\n') { &[] } else { folder };
    shell.tell(&[b"? ", folder].concat());
    match command.spawn() {
        Ok(child) => {
            shell.tell(format!("+ {}", child.id()).as_bytes());
            let group = child.id();
            Ok((child, Guarded { group }))
        }
        Err(error) => {
            shell.tell(b"!");
            Err(error)
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        SHELL.lock().unwrap_or_else(PoisonError::into_inner).tell(format!("- {}", self.group).as_bytes());
    }
}

impl Shell {
    fn tell(&mut self, message: &[u8]) {
        if matches!(self, Self::NotStarted) {
            *self = start().map_or(Self::Absent, Self::Listening);
        }
        if let Self::Listening(pipe) = self
            && pipe.write_all(&[message, b"\n"].concat()).is_err()
        {
            // Somebody ended the shell; a new one would not know the groups of the old.
            *self = Self::Absent;
        }
    }
}

fn start() -> Option<ChildStdin> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SCRIPT]).env_clear().process_group(0);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    child.ok()?.stdin
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn sleeper(folder: &Path) -> Child {
        Command::new("sleep").arg("1000").current_dir(folder).process_group(0).spawn().expect("a sleeper")
    }

    #[test]
    fn programs_that_run_or_start_when_we_are_gone_are_ended_and_no_others() {
        let folders = [(); 3].map(|()| tempfile::tempdir().expect("a folder"));
        let mut sleepers = folders.each_ref().map(|folder| sleeper(folder.path()));
        let mut pipe = start().expect("a shell");
        let starting = folders[1].path().display();
        let list = format!("? /no/where\n!\n+ {}\n+ 4194304\n- 4194304\n? {starting}\n", sleepers[0].id());
        pipe.write_all(list.as_bytes()).expect("a shell that listens");
        drop(pipe);
        for sleeper in &mut sleepers[..2] {
            assert_eq!(sleeper.wait().expect("a child of ours").signal(), Some(9));
        }
        assert_eq!(sleepers[2].try_wait().expect("a child of ours"), None);
        sleepers[2].kill().expect("a child of ours");
        sleepers[2].wait().expect("a child of ours");
    }
}
