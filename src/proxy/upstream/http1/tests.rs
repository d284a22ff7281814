//! What a connection holds of what it reads.

use std::future::poll_fn;

use http::HeaderMap;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::*;
use crate::clock::monotonic;

/// The next bytes of a response.
async fn next(connection: &mut Connection) -> Bytes {
    let frame = poll_fn(|cx| connection.poll_frame(cx)).await.unwrap();
    frame.unwrap().into_data().unwrap_or_else(|_| panic!("no data"))
}

#[tokio::test]
async fn drops_that_follow_a_flood_share_their_room() {
    const FLOOD: usize = 1 << 20;
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let now = monotonic();
    let mut connection = Connection::new(Stream::Unix(ours), now, now + CONTINUE);
    let (method, target) = (Method::GET, "/".parse().unwrap());
    let request = Outgoing { method, target, headers: HeaderMap::new(), answer_in_lines: false };
    connection.begin(&request, Outbound::Empty, 0, false);
    theirs.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    poll_fn(|cx| connection.poll_head(cx)).await.unwrap();
    // Reads become as large as they get.
    let flood = vec![b'x'; FLOOD];
    let reading = async {
        let mut came = 0;
        while came < FLOOD {
            came += next(&mut connection).await.len();
        }
    };
    let (sent, ()) = tokio::join!(theirs.write_all(&flood), reading);
    sent.unwrap();
    assert_eq!(connection.inbox.read_size(), MAX_READ);
    // Nobody takes what comes from here on.
    let mut held: Vec<Bytes> = Vec::new();
    for _ in 0..100 {
        theirs.write_all(b"x").await.unwrap();
        held.push(next(&mut connection).await);
    }
    let follows = |pair: &[Bytes]| pair[0].as_ptr().wrapping_add(1) == pair[1].as_ptr();
    let rooms = 1 + held.windows(2).filter(|pair| !follows(pair)).count();
    assert!(rooms <= 2, "{rooms} rooms for 100 drops");
}
