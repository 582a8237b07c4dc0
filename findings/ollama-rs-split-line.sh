#!/usr/bin/env bash
# Ollama writes a line of JSON for each token, and where the network cuts them is nobody's
# choice. Programs in Rust speak to it by ollama-rs.
# Guess: a line that comes in two packets is read as one, and an error line is an error.
# Seen: each packet is read by itself. What is in such a line is missing from the reply, an
# error line too, and the stream goes on and ends as a whole one.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

need cargo
mkdir -p "$lab/try/src"
cat >"$lab/try/Cargo.toml" <<'TOML'
[package]
name = "try"
version = "0.0.0"
edition = "2021"
[dependencies]
ollama-rs = { version = "=0.3.6", features = ["stream"] }
tokio = { version = "1", features = ["rt", "net", "io-util", "time", "macros"] }
tokio-stream = "0.1"
TOML
cat >"$lab/try/src/main.rs" <<'RUST'
use ollama_rs::{generation::completion::request::GenerationRequest, Ollama};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_stream::StreamExt;

async fn ask(packets: &'static [&'static str]) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        socket.read(&mut [0; 4096]).await.unwrap();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n";
        for packet in [head].iter().chain(packets) {
            socket.write_all(packet.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let ollama = Ollama::builder().host("http://127.0.0.1").port(port).build();
    let asked = GenerationRequest::new("a".into(), "a");
    let mut stream = ollama.generate_stream(asked).await.unwrap();
    let mut said = Vec::new();
    while let Some(part) = stream.next().await {
        match part {
            Ok(replies) => said.extend(replies.into_iter().map(|reply| if reply.done { "end".to_string() } else { reply.response })),
            Err(error) => said.push(format!("error: {error}")),
        }
    }
    said.join(" ")
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    const ONE: &str = "{\"model\":\"a\",\"created_at\":\"2026-01-01T00:00:00Z\",\"response\":\"one\",\"done\":false}\n";
    const BEGINNING: &str = "{\"model\":\"a\",\"created_at\":\"2026-01-01T00:00:00Z\",\"resp";
    const REST: &str = "onse\":\"two\",\"done\":false}\n";
    const DONE: &str = "{\"model\":\"a\",\"created_at\":\"2026-01-01T00:00:00Z\",\"response\":\"\",\"done\":true}\n";
    println!("cut: {}; error line: {}", ask(&[ONE, BEGINNING, REST, DONE]).await, ask(&[ONE, "{\"error\":\"gone\"}\n"]).await);
}
RUST
seen=$(cd "$lab/try" && timeout 600 cargo run --quiet 2>"$lab/cargo.log") || {
	tail -n 3 "$lab/cargo.log" >&2
	exit 2
}

conclude 'ollama-rs 0.3.6' 'cut: one two end; error line: one error: gone' "$seen" \
	'cut: one end; error line: one'
