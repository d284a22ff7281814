//! An upstream that keeps every byte that it was sent, connection by connection, and answers each
//! request with what it understood of it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::readers::{Message, READERS, readings};

type Bytes = Arc<Mutex<Vec<u8>>>;

/// The upstream.
pub struct Recorder {
    pub address: SocketAddr,
    connections: Arc<Mutex<Vec<Bytes>>>,
}

impl Recorder {
    pub async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("bound");
        let connections: Arc<Mutex<Vec<Bytes>>> = Arc::default();
        let all = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let bytes = Bytes::default();
                all.lock().unwrap().push(Arc::clone(&bytes));
                tokio::spawn(record(stream, bytes));
            }
        });
        Self { address, connections }
    }

    /// Every whole request so far, which all readers must understand alike, and which must carry
    /// `injected` once and exactly, whatever its spelling.
    pub fn requests(&self, injected: (&str, &str)) -> Vec<Message> {
        let mut requests = Vec::new();
        for connection in self.connections.lock().unwrap().iter() {
            let bytes = connection.lock().unwrap();
            let told = readings(&bytes);
            for (name, other) in &told {
                let text = String::from_utf8_lossy(&bytes);
                assert_eq!(*other, told[0].1, "{name} reads something else in {text:?}");
                for message in &other.as_ref().unwrap_or_else(|e| panic!("{e}: {text:?}")).0 {
                    assert_eq!(message.values(injected.0), [injected.1], "{name}: {message:?}");
                    assert_eq!(message.values("host"), [self.address.to_string()], "{name}");
                }
            }
            requests.extend(told[0].1.as_ref().expect("looked at").0.clone());
        }
        requests
    }
}

async fn record(mut stream: TcpStream, bytes: Bytes) {
    let (mut buffer, mut answered) = (vec![0; 64 << 10], 0);
    while let Ok(came @ 1..) = stream.read(&mut buffer).await {
        let mut answers = String::new();
        {
            let mut bytes = bytes.lock().unwrap();
            bytes.extend_from_slice(&buffer[..came]);
            while let Ok(Some((message, length))) = READERS[0].one(&bytes[answered..]) {
                answered += length;
                let text = String::from_utf8_lossy(&message.body).into_owned();
                let told = format!("{} {} {text}", message.method, message.target);
                let told = told.trim_end();
                answers +=
                    &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{told}", told.len());
            }
        }
        if stream.write_all(answers.as_bytes()).await.is_err() {
            return;
        }
    }
}
