//! An S3-compatible server for one test: `moto_server`, from `$SPDFLOW_MOTO` or the path, on a free port of this machine.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server that ends when it is dropped, or when the test's process does, however that happens.
pub(crate) struct ObjectServer {
    server: Child,
    /// A shell that kills the server when its own input ends, as it does when we are killed.
    watchdog: Child,
    port: u16,
}

/// Longer than any machine needs; a start takes three seconds.
const PATIENCE: Duration = Duration::from_secs(120);

impl ObjectServer {
    /// Starts a server, or says that there is none.
    pub(crate) fn start() -> Option<Self> {
        let Some(program) = find() else {
            println!("skipped: no moto_server (pip install 'moto[server]', or name it with SPDFLOW_MOTO)");
            return None;
        };
        // Somebody else may take the port between our look and the server's.
        let server = (0..3).find_map(|_| Self::start_at(&program, free_port()));
        Some(server.expect("moto_server starts"))
    }

    fn start_at(program: &Path, port: u16) -> Option<Self> {
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let mut watchdog = Command::new("sh");
        watchdog.args(["-c", &format!("cat >/dev/null; kill -9 {}", server.id())]).stdin(Stdio::piped());
        let mut this = Self { server, watchdog: watchdog.spawn().expect("a shell"), port };
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE && this.server.try_wait().is_ok_and(|end| end.is_none()) {
            if this.request("GET", "/moto-api/", b"").is_ok_and(|status| status == 200) {
                return Some(this);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    }

    /// Returns the variables by which programs find the server and are let in.
    pub(crate) fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", "tester".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
    }

    /// Sends a request and returns the status of the answer.
    pub(crate) fn request(&self, method: &str, path: &str, body: &[u8]) -> std::io::Result<u16> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let (port, length) = (self.port, body.len());
        // The server wants to hear who we are, and believes it.
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: AWS tester:unsigned\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let text = String::from_utf8_lossy(&answer);
        let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
        status.ok_or_else(|| std::io::Error::other("no status"))
    }
}

impl Drop for ObjectServer {
    fn drop(&mut self) {
        // The watchdog first: later its number for the server may be somebody else's.
        for process in [&mut self.watchdog, &mut self.server] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn find() -> Option<PathBuf> {
    if let Some(program) = std::env::var_os("SPDFLOW_MOTO").filter(|program| !program.is_empty()) {
        return Some(PathBuf::from(program));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("moto_server")).find(|program| program.is_file())
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}
