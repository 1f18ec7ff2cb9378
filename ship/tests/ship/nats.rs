//! A nats-server of our own, and a client that knows just enough of the protocol to look into its streams.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A running server; it is killed when it is dropped.
pub(crate) struct Server {
    program: PathBuf,
    child: Child,
    dir: tempfile::TempDir,
    config: String,
    pub(crate) port: u16,
}

/// The server program, or None with a printed word that the test is skipped.
pub(crate) fn program() -> Option<PathBuf> {
    let named = std::env::var_os("NPROXY_NATS_SERVER").map(PathBuf::from);
    let fetched = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/nats/nats-server");
    let on_path = std::env::var_os("PATH").into_iter().flat_map(|path| {
        std::env::split_paths(&path).map(|dir| dir.join("nats-server")).collect::<Vec<_>>()
    });
    let found = named.into_iter().chain([fetched]).chain(on_path).find(|path| path.is_file());
    if found.is_none() {
        assert!(std::env::var_os("NPROXY_REQUIRE_ALL").is_none(), "no nats-server");
        eprintln!("skipped: no nats-server (scripts/nats-server fetches one)");
    }
    found
}

/// A server with `config` besides its port and store, or None if the test is skipped.
pub(crate) fn server(config: &str) -> Option<Server> {
    let program = program()?;
    let dir = tempfile::tempdir().expect("a directory");
    let port =
        TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its number").port();
    let child = Server::spawn(&program, &dir, port, config);
    let server = Server { program, child, dir, config: config.to_owned(), port };
    server.wait();
    Some(server)
}

impl Server {
    fn spawn(program: &PathBuf, dir: &tempfile::TempDir, port: u16, config: &str) -> Child {
        let path = dir.path().join("server.conf");
        let store = dir.path().join("store");
        let text = format!(
            "listen: 127.0.0.1:{port}\njetstream {{ store_dir: {:?} }}\n{config}\n",
            store.display().to_string()
        );
        std::fs::write(&path, text).expect("write the configuration");
        let log = std::fs::File::create(dir.path().join("log")).expect("create the log");
        Command::new(program)
            .arg("-c")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start nats-server")
    }

    fn wait(&self) {
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < end, "the server does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn start(&mut self) {
        self.start_with(&self.config.clone());
    }

    pub(crate) fn start_with(&mut self, config: &str) {
        self.child = Server::spawn(&self.program, &self.dir, self.port, config);
        self.wait();
    }

    /// A client that logs in with what `login` adds.
    pub(crate) fn client_as(&self, login: Value) -> Client {
        Client::connect(self.port, |_| login)
    }

    /// A client that logs in with what `login` makes of the server's nonce.
    pub(crate) fn client_signing(&self, login: impl FnOnce(&str) -> Value) -> Client {
        Client::connect(self.port, login)
    }

    pub(crate) fn client(&self) -> Client {
        self.client_as(json!({}))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A message as the stream holds it.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    subject: String,
    pub(crate) headers: String,
    pub(crate) payload: Vec<u8>,
}

pub(crate) struct Client {
    reader: BufReader<TcpStream>,
    /// Counts questions, so that a late answer to one is not taken for the next one's.
    count: u32,
}

impl Client {
    fn connect(port: u16, login: impl FnOnce(&str) -> Value) -> Client {
        let socket = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
        let mut reader = BufReader::new(socket);
        let mut info = String::new();
        reader.read_line(&mut info).expect("INFO");
        let info: Value = serde_json::from_str(info.trim_start_matches("INFO")).expect("JSON");
        let mut login = login(info["nonce"].as_str().unwrap_or_default());
        login["verbose"] = json!(false);
        login["headers"] = json!(true);
        login["no_responders"] = json!(true);
        let mut client = Client { reader, count: 0 };
        client.send(format!("CONNECT {login}\r\nSUB _INBOX.test.* 1\r\n").as_bytes());
        client
    }

    fn send(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).expect("send");
    }

    /// The next message: headers and payload.
    fn next(&mut self) -> Stored {
        loop {
            let mut line = String::new();
            assert!(self.reader.read_line(&mut line).expect("read") > 0, "the server closed");
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |back: usize| words[words.len() - back].parse::<usize>().expect("a size");
            let (headers, total) = match words.first().copied() {
                Some("MSG") => (0, number(1)),
                Some("HMSG") => (number(2), number(1)),
                Some("PING") => {
                    self.send(b"PONG\r\n");
                    continue;
                }
                Some("-ERR") => panic!("the server says {line}"),
                _ => continue,
            };
            let mut bytes = vec![0; total + 2];
            self.reader.read_exact(&mut bytes).expect("read");
            return Stored {
                subject: words[1].to_owned(),
                headers: String::from_utf8_lossy(&bytes[..headers]).into_owned(),
                payload: bytes[headers..total].to_vec(),
            };
        }
    }

    pub(crate) fn ask(&mut self, what: &str, question: &Value) -> Value {
        let question = if question.is_null() { String::new() } else { question.to_string() };
        self.count += 1;
        let reply = format!("_INBOX.test.{}", self.count);
        let length = question.len();
        self.send(format!("PUB $JS.API.{what} {reply} {length}\r\n{question}\r\n").as_bytes());
        loop {
            let answer = self.next();
            if answer.subject == reply {
                return serde_json::from_slice(&answer.payload).expect("JSON");
            }
        }
    }

    /// Makes the stream LOGS for the subjects logs.>, with what `settings` adds; returns what the server made of it.
    pub(crate) fn create(&mut self, settings: Value) -> Value {
        let mut config = json!({ "name": "LOGS", "subjects": ["logs.>"], "storage": "file" });
        for (key, value) in settings.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        let answer = self.ask("STREAM.CREATE.LOGS", &config);
        assert!(answer.get("error").is_none(), "{answer}");
        answer
    }

    pub(crate) fn count(&mut self) -> u64 {
        self.ask("STREAM.INFO.LOGS", &Value::Null)["state"]["messages"].as_u64().expect("a count")
    }

    /// Waits until LOGS holds `count` messages.
    pub(crate) fn wait_for(&mut self, count: u64) {
        let end = Instant::now() + Duration::from_secs(120);
        loop {
            let now = self.count();
            if now >= count {
                return;
            }
            assert!(Instant::now() < end, "{now} of {count} messages are there");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// All messages of LOGS, in its order.
    pub(crate) fn all(&mut self) -> Vec<Stored> {
        let count = usize::try_from(self.count()).expect("a count");
        self.count += 1;
        let port = self.reader.get_ref().local_addr().expect("an address").port();
        let deliver = format!("deliver.{port}.{}", self.count);
        self.send(format!("SUB {deliver} 2\r\n").as_bytes());
        let consumer = json!({ "stream_name": "LOGS", "config": {
            "deliver_subject": deliver, "ack_policy": "none", "deliver_policy": "all",
        }});
        let question = consumer.to_string();
        let length = question.len();
        self.send(
            format!("PUB $JS.API.CONSUMER.CREATE.LOGS _INBOX.test.0 {length}\r\n{question}\r\n")
                .as_bytes(),
        );
        let mut stored = Vec::new();
        while stored.len() < count {
            let message = self.next();
            // A stream delivers under the subject that a message was published to.
            if !message.subject.starts_with("_INBOX.") {
                stored.push(message);
            }
        }
        self.send(b"UNSUB 2\r\n");
        stored
    }

    /// The bytes that the messages of LOGS stand for.
    pub(crate) fn text(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        for message in self.all() {
            text.extend_from_slice(&message.payload);
            if !message.headers.contains("Nproxy-Line: open") {
                text.push(b'\n');
            }
        }
        text
    }
}
