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
use std::sync::{Mutex, MutexGuard, PoisonError};

// The shell is in a process group of its own and deaf to what a terminal sends, so that it outlives us. Each program has a
// number of ours, under which we tell the folder it is about to start in, then its group, then that it has ended.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
count=0
while read -r what number which; do
  [ "$number" -lt "$count" ] || count=$((number + 1))
  case $what in
    '?') eval "starting_$number=\$which group_$number=" ;;
    +) eval "starting_$number= group_$number=\$which" ;;
    -) eval "starting_$number= group_$number=" ;;
  esac
done
is_starting=
number=0
while [ "$number" -lt "$count" ]; do
  eval "starting=\${starting_$number-} group=\${group_$number-}"
  if [ -n "$group" ]; then kill -KILL "-$group"; fi
  is_starting=$is_starting$starting
  number=$((number + 1))
done
if [ -n "$is_starting" ]; then
  sleep 1
  for process in /proc/[0-9]*; do
    number=0
    while [ "$number" -lt "$count" ]; do
      eval "starting=\${starting_$number-}"
      if [ -n "$starting" ] && [ "$process/cwd" -ef "$starting" ]; then kill -KILL "-${process#/proc/}"; fi
      number=$((number + 1))
    done
  done
fi
"#;

/// What the shell is told.
struct List {
    shell: Shell,
    /// Which numbers are in use.
    is_taken: Vec<bool>,
}

enum Shell {
    NotStarted,
    Listening(ChildStdin),
    /// There is no shell; programs then live on when we are killed, as they do under `make`.
    Absent,
}

static LIST: Mutex<List> = Mutex::new(List { shell: Shell::NotStarted, is_taken: Vec::new() });

/// A process group that ends with us. Dropping it takes it off the list.
pub(super) struct Guarded {
    number: usize,
}

/// Starts `command`, which makes a process group of its own in the folder `start`, and puts that on the list.
///
/// # Errors
/// Those of starting it.
pub(super) fn spawn(command: &mut Command, start: &Path) -> io::Result<(Child, Guarded)> {
    let guarded = Guarded { number: list().begin(start) };
    // Without the list: it takes as long as the program's own start, and others start meanwhile.
    let child = command.spawn()?;
    list().tell(&format!("+ {} {}", guarded.number, child.id()));
    Ok((child, guarded))
}

impl Drop for Guarded {
    fn drop(&mut self) {
        list().end(self.number);
    }
}

fn list() -> MutexGuard<'static, List> {
    LIST.lock().unwrap_or_else(PoisonError::into_inner)
}

impl List {
    /// Notes that a program is about to start in this folder, and returns its number.
    fn begin(&mut self, folder: &Path) -> usize {
        let number = self.is_taken.iter().position(|is_taken| !is_taken).unwrap_or(self.is_taken.len());
        self.is_taken.resize(self.is_taken.len().max(number + 1), false);
        self.is_taken[number] = true;
        // A line break would end the message; such a folder is not looked for.
        let folder = folder.as_os_str().as_bytes();
        let folder = if folder.contains(&b'\n') { &[] } else { folder };
        self.shell.tell(&[format!("? {number} ").as_bytes(), folder].concat());
        number
    }

    fn end(&mut self, number: usize) {
        self.is_taken[number] = false;
        self.tell(&format!("- {number}"));
    }

    fn tell(&mut self, message: &str) {
        self.shell.tell(message.as_bytes());
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
        let folders = [(); 4].map(|()| tempfile::tempdir().expect("a folder"));
        let mut sleepers = folders.each_ref().map(|folder| sleeper(folder.path()));
        let mut pipe = start().expect("a shell");
        let [_, first, second, other] = folders.each_ref().map(|folder| folder.path().display());
        // The one that runs, a group that is gone, two that start, and one that could not, with its number used again.
        let list = format!(
            "? 0 /no/where\n? 1 {other}\n+ 0 {}\n- 1\n? 1 /no/where\n+ 1 4194304\n? 3 {first}\n? 2 {second}\n",
            sleepers[0].id()
        );
        pipe.write_all(list.as_bytes()).expect("a shell that listens");
        drop(pipe);
        for sleeper in &mut sleepers[..3] {
            assert_eq!(sleeper.wait().expect("a child of ours").signal(), Some(9));
        }
        assert_eq!(sleepers[3].try_wait().expect("a child of ours"), None);
        sleepers[3].kill().expect("a child of ours");
        sleepers[3].wait().expect("a child of ours");
    }

    #[test]
    fn a_number_is_used_again_when_its_program_has_ended() {
        let mut list = List { shell: Shell::Absent, is_taken: Vec::new() };
        let folder = Path::new("/no/where");
        assert_eq!((list.begin(folder), list.begin(folder), list.begin(folder)), (0, 1, 2));
        list.end(1);
        assert_eq!((list.begin(folder), list.begin(folder)), (1, 3));
    }
}
