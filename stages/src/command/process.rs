//! Starts a program and watches it to its end: its output goes to the log, and it stops when it should.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use spdflow_engine::kind::{ProgressSink, StageContext, StageError};

use super::guard::{self, Guarded};

/// How often we look whether to stop.
const TICK: Duration = Duration::from_millis(50);
/// How long a program may take to end after it was asked to; all of an interruption is to take less than two seconds.
const GRACE: Duration = Duration::from_millis(1500);
/// How many of the last lines of its standard error an error shows.
const SHOWN_LINES: usize = 10;
/// A line longer than this is logged in pieces.
const MAX_LINE: usize = 1 << 16;

/// Runs the program to its end.
///
/// # Errors
/// [`StageError::Interrupted`] if the flag to stop was raised; [`StageError::Failed`] if it could not be started or
/// ended with anything but status 0.
pub(super) fn run(
    program: &Path,
    arguments: &[String],
    environment: &BTreeMap<String, String>,
    start: &Path,
    context: &StageContext<'_>,
) -> Result<(), StageError> {
    let name = &arguments[0];
    let mut command = Command::new(program);
    command.arg0(name).args(&arguments[1..]).env_clear().envs(environment).current_dir(start);
    // A group of its own: with the program, everything that it started can be ended.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (child, guarded) = guard::spawn(&mut command, start).map_err(|error| cannot_start(name, &error))?;
    let watched = Watched::new(child, context.progress);
    let (status, last_lines) = watched.finish(context, guarded)?;
    if status.success() {
        return Ok(());
    }
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
    };
    let mut message = format!("`{name}` {how}");
    if !last_lines.is_empty() {
        message += "; the last lines of its standard error:";
    }
    for line in last_lines {
        message += &format!("\n    {line}");
    }
    Err(StageError::failed(message))
}

fn cannot_start(name: &str, error: &io::Error) -> StageError {
    let hint = match error.kind() {
        // The program itself was found.
        io::ErrorKind::NotFound => Some("the interpreter that its first line (`#!`) names is not there"),
        io::ErrorKind::PermissionDenied => Some("is it an executable file?"),
        _ => None,
    };
    let message = format!("`{name}` cannot be started: {error}");
    StageError::Failed { message, hint: hint.map(str::to_owned) }
}

/// A program that runs.
struct Watched<'a> {
    child: Child,
    group: Pid,
    streams: Vec<Stream<'a>>,
    /// Becomes readable when the program ends, where the system has such a thing.
    exit: Option<OwnedFd>,
}

/// One of the program's output streams.
struct Stream<'a> {
    pipe: Box<dyn Pipe>,
    is_open: bool,
    /// What was read of a line that has not ended.
    line: Vec<u8>,
    log: &'a dyn ProgressSink,
    /// The last lines, of standard error only.
    last_lines: Option<VecDeque<String>>,
}

/// What happened while we waited.
struct Ready {
    has_read: bool,
    /// Whether the program has ended, where that can be waited for.
    has_ended: bool,
}

trait Pipe: Read + AsFd {}

impl<P: Read + AsFd> Pipe for P {}

impl<'a> Watched<'a> {
    fn new(mut child: Child, log: &'a dyn ProgressSink) -> Self {
        let group = Pid::from_child(&child);
        let stdout = child.stdout.take().map(|pipe| Stream::new(Box::new(pipe), log, None));
        let stderr = child.stderr.take().map(|pipe| Stream::new(Box::new(pipe), log, Some(VecDeque::new())));
        Self { child, group, streams: stdout.into_iter().chain(stderr).collect(), exit: exit_watch(group) }
    }

    /// Waits for the end of the program and of everything it started; returns its status and last lines.
    fn finish(mut self, context: &StageContext<'_>, guarded: Guarded) -> Result<(ExitStatus, Vec<String>), StageError> {
        let ended = self.watch(context);
        if matches!(ended, Ok(true)) {
            self.stop();
        }
        // While the program is not waited for, nobody else can have its group's number.
        let _ = kill_process_group(self.group, Signal::KILL);
        drop(guarded);
        let status = self.child.wait();
        let was_stopped = ended.map_err(|error| StageError::failed(format!("cannot watch the program: {error}")))?;
        self.read_rest();
        if was_stopped {
            return Err(StageError::Interrupted);
        }
        let status = status.map_err(|error| StageError::failed(format!("cannot wait for the program: {error}")))?;
        let last_lines = self.streams.into_iter().filter_map(|stream| stream.last_lines).flatten().collect();
        Ok((status, last_lines))
    }

    /// Reads what the program prints until it ends; returns whether it is to be stopped instead.
    fn watch(&mut self, context: &StageContext<'_>) -> io::Result<bool> {
        while !context.should_stop() {
            if self.read(TICK)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads what is left in the pipes. Something that left the group and still prints is not waited for.
    fn read_rest(&mut self) {
        let begin = Instant::now();
        while begin.elapsed() < TICK && matches!(self.read_ready(Duration::ZERO), Ok(Ready { has_read: true, .. })) {}
        for stream in &mut self.streams {
            stream.end_line();
        }
    }

    /// Waits for output or the end, for at most `pause`; returns whether the program has ended.
    fn read(&mut self, pause: Duration) -> io::Result<bool> {
        if self.exit.is_none() && self.streams.iter().all(|stream| !stream.is_open) {
            // There is nothing to wait at: it ends at any moment, or has closed its output for good.
            std::thread::sleep(pause.min(Duration::from_millis(2)));
            return self.has_ended();
        }
        let ready = self.read_ready(pause)?;
        if self.exit.is_some() && !ready.has_ended { Ok(false) } else { self.has_ended() }
    }

    /// Reads once from every stream that has something.
    fn read_ready(&mut self, pause: Duration) -> io::Result<Ready> {
        let open: Vec<usize> = (0..self.streams.len()).filter(|index| self.streams[*index].is_open).collect();
        let mut fds: Vec<PollFd<'_>> =
            open.iter().map(|index| PollFd::from_borrowed_fd(self.streams[*index].fd(), PollFlags::IN)).collect();
        fds.extend(self.exit.as_ref().map(|exit| PollFd::new(exit, PollFlags::IN)));
        let timeout = Timespec { tv_sec: 0, tv_nsec: pause.subsec_nanos().into() };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut result = Ready { has_read: false, has_ended: ready.len() > open.len() && ready[open.len()] };
        for (index, _) in open.iter().zip(&ready).filter(|(_, ready)| **ready) {
            self.streams[*index].read()?;
            result.has_read = true;
        }
        Ok(result)
    }

    /// Returns whether the program has ended, without waiting for it: its number stays taken.
    fn has_ended(&self) -> io::Result<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        Ok(waitid(WaitId::Pid(self.group), options)?.is_some())
    }

    /// Asks everything in the group to end, and lets a little time pass.
    fn stop(&mut self) {
        let _ = kill_process_group(self.group, Signal::TERM);
        let begin = Instant::now();
        while begin.elapsed() < GRACE && !self.read(Duration::from_millis(10)).unwrap_or(true) {}
    }
}

impl<'a> Stream<'a> {
    fn new(pipe: Box<dyn Pipe>, log: &'a dyn ProgressSink, last_lines: Option<VecDeque<String>>) -> Self {
        Self { pipe, is_open: true, line: Vec::new(), log, last_lines }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 1 << 14];
        match self.pipe.read(&mut buffer) {
            Ok(0) => self.is_open = false,
            Ok(count) => {
                for piece in buffer[..count].split_inclusive(|byte| *byte == b'\n') {
                    self.line.extend_from_slice(piece);
                    if self.line.ends_with(b"\n") || self.line.len() > MAX_LINE {
                        self.end_line();
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Logs what was read of a line.
    fn end_line(&mut self) {
        if self.line.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(&self.line);
        let text = text.trim_end_matches(['\n', '\r']);
        // A progress bar writes over its own line; what a terminal would show is the last of them.
        let shown = text.rsplit('\r').next().unwrap_or(text);
        self.log.log(shown);
        if let Some(last) = &mut self.last_lines {
            if last.len() == SHOWN_LINES {
                last.pop_front();
            }
            last.push_back(shown.to_owned());
        }
        self.line.clear();
    }
}

#[cfg(target_os = "linux")]
fn exit_watch(process: Pid) -> Option<OwnedFd> {
    rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn exit_watch(_process: Pid) -> Option<OwnedFd> {
    None
}
