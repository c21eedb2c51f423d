//! Frames between rank 0 and one other rank, over TCP.
//!
//! A frame is one byte that says what it is, its length in 8 bytes (little-endian), and its contents. Who dies is
//! noticed at once by the connection's end, or, if a whole machine goes, within a minute by the system's own probes: a
//! rank may be silent for hours while another one works.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::net::{RecvFlags, recv, sockopt};

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Tag {
    /// Of the handshake.
    Greeting = 0,
    /// A stage to compute, from rank 0.
    Job = 1,
    /// A file of its inputs.
    File = 2,
    /// A message of the stage.
    Message = 3,
    /// A rank has ended the stage; contents: what went wrong, or nothing.
    Done = 4,
    /// Rank 0 has ended the stage.
    Over = 5,
    /// Rank 0 needs nobody any more.
    End = 6,
}

impl Tag {
    const ALL: [Self; 7] = [Self::Greeting, Self::Job, Self::File, Self::Message, Self::Done, Self::Over, Self::End];
}

/// The connection of rank 0 with another rank.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
}

impl Connection {
    /// Returns the connection over `stream`, which from now on notices when the other side is gone.
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, Duration::from_secs(20))?;
        sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(10))?;
        sockopt::set_tcp_keepcnt(&stream, 4)?;
        sockopt::set_tcp_user_timeout(&stream, 60_000)?;
        Ok(Self { stream })
    }

    /// Sets how long a read may take; for ever where absent.
    pub(super) fn patience(&self, limit: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(limit)
    }

    pub(super) fn send(&self, tag: Tag, contents: &[u8]) -> io::Result<()> {
        let mut frame = Vec::with_capacity(HEAD + contents.len());
        frame.push(tag as u8);
        frame.extend_from_slice(&(contents.len() as u64).to_le_bytes());
        frame.extend_from_slice(contents);
        (&self.stream).write_all(&frame)
    }

    pub(super) fn receive(&self) -> io::Result<(Tag, Vec<u8>)> {
        self.receive_up_to(u64::MAX)
    }

    /// As [`Connection::receive`], but refuses a frame that claims to be longer than `limit`.
    pub(super) fn receive_up_to(&self, limit: u64) -> io::Result<(Tag, Vec<u8>)> {
        let mut head = [0; HEAD];
        (&self.stream).read_exact(&mut head)?;
        let [first, length @ ..] = head;
        let length = u64::from_le_bytes(length);
        // Whoever sends more is none of us either.
        let tag = tag(if length <= limit { first } else { u8::MAX })?;
        // Not asked for at once: a length may be wrong.
        let mut contents = Vec::new();
        if (&self.stream).take(length).read_to_end(&mut contents)? as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((tag, contents))
    }

    /// Returns the next frame without taking it, as much as there is of its first bytes; nothing if none has come yet.
    pub(super) fn glance(&self) -> io::Result<Option<(Tag, Vec<u8>)>> {
        let mut bytes = [0; GLANCE];
        let found = match recv(&self.stream, &mut bytes[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
            Ok((_, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((_, found)) => &bytes[..found],
        };
        let Some(([first, length @ ..], contents)) = found.split_first_chunk::<HEAD>() else { return Ok(None) };
        let length = usize::try_from(u64::from_le_bytes(*length.first_chunk().expect("eight bytes")));
        let contents = &contents[..contents.len().min(length.unwrap_or(usize::MAX))];
        Ok(Some((tag(*first)?, contents.to_vec())))
    }
}

/// Bytes before the contents of a frame.
const HEAD: usize = 9;

/// How many bytes [`Connection::glance`] looks at: enough for a sentence.
const GLANCE: usize = 2048;

fn tag(byte: u8) -> io::Result<Tag> {
    let known = Tag::ALL.into_iter().find(|known| *known as u8 == byte);
    known.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it does not speak our language"))
}

/// Returns in words how an error shows that the other side is gone.
pub(super) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => "connection closed".to_owned(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "no answer".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Returns what `glance` finds as soon as it finds something.
    fn found(connection: &Connection) -> io::Result<(Tag, Vec<u8>)> {
        loop {
            match connection.glance() {
                Ok(None) => std::thread::yield_now(),
                Ok(Some(frame)) => return Ok(frame),
                Err(error) => return Err(error),
            }
        }
    }

    #[test]
    fn a_glance_takes_nothing_waits_for_nothing_and_sees_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = Connection::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap()).unwrap();
        let here = Connection::new(listener.accept().unwrap().0).unwrap();
        assert_eq!(here.glance().unwrap(), None);
        there.send(Tag::Done, b"no memory").unwrap();
        there.send(Tag::Message, &vec![7; 3 * GLANCE]).unwrap();
        for _ in 0..2 {
            assert_eq!(found(&here).unwrap(), (Tag::Done, b"no memory".to_vec()));
        }
        assert_eq!(here.receive().unwrap(), (Tag::Done, b"no memory".to_vec()));
        assert_eq!(found(&here).unwrap().0, Tag::Message);
        assert_eq!(here.receive().unwrap().1.len(), 3 * GLANCE);
        drop(there);
        assert_eq!(reason(&found(&here).unwrap_err()), "connection closed");
    }
}
