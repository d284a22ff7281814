//! The bad network.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use crate::client::{Answer, Client};
use crate::{Api, FaultProxy, Tls, Tokens};

async fn get(proxy: &FaultProxy) -> std::io::Result<Answer> {
    let mut client = Client::connect(proxy.address()).await?;
    client.request("GET", "/", &[("Authorization", "Bearer live")], b"").await
}

#[tokio::test]
async fn the_network_is_bad_in_every_way() {
    let tokens = Tokens::new();
    tokens.issue("live", None);
    let api = Api::start(Tls::Off, &tokens);
    let proxy = FaultProxy::start(api.server().address());
    assert_eq!(get(&proxy).await.unwrap().status, 200);

    proxy.set_delay(Duration::from_millis(20));
    let before = Instant::now();
    assert_eq!(get(&proxy).await.unwrap().status, 200);
    assert!(before.elapsed() >= Duration::from_millis(40));
    proxy.set_delay(Duration::ZERO);

    proxy.set_cut_after(Some(30));
    assert_eq!(get(&proxy).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    proxy.set_cut_after(None);

    proxy.set_reset(true);
    assert_eq!(get(&proxy).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    proxy.set_reset(false);

    let mut open = Client::connect(proxy.address()).await.unwrap();
    open.request("GET", "/", &[], b"").await.unwrap();
    proxy.refuse(true).await;
    assert_eq!(get(&proxy).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(open.request("GET", "/", &[], b"").await.unwrap().status, 401);
    proxy.reset_open();
    assert_eq!(open.rest().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    proxy.refuse(false).await;
    assert_eq!(get(&proxy).await.unwrap().status, 200);
}
