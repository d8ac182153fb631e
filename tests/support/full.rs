//! A server that is up and has no room for a ping, so that nothing is found out about it: for tests of what has servers pinged.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};

/// Its URL, and a word for each ping.
pub(crate) async fn server() -> std::io::Result<(String, mpsc::UnboundedReceiver<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let (tell, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            // Whoever does not count has dropped it.
            let _ = tell.send(());
            let length = socket.read_u32().await.unwrap_or(4);
            let _ = socket.read_exact(&mut vec![0; length as usize - 4]).await;
            let words = b"SFATAL\0VFATAL\0C53300\0Mtoo many clients already\0\0";
            let length = words.len() as u32 + 4;
            let _ = socket.write_all(&[b"E", &length.to_be_bytes()[..], words].concat()).await;
        }
    });
    Ok((url(port), asked))
}

pub(crate) fn url(port: u16) -> String {
    format!("postgres://app@127.0.0.1:{port}/app?sslmode=disable")
}
