//! The HTTP client against a server that speaks JSON-RPC, and against servers that do not.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use common::*;
use counterfoil::chain::{ChainError, Client, HttpNode, Node, Payer};
use counterfoil::receipt::Signer;
use counterfoil_devchain::DevChain;
use serde_json::json;

/// Answers every request on a new port with what `answer` makes of its body; returns the address.
fn serve(answer: impl Fn(&str) -> (u16, String) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            reply(stream.unwrap(), &answer);
        }
    });
    url
}

fn reply(mut stream: TcpStream, answer: &impl Fn(&str) -> (u16, String)) {
    let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
    let body = loop {
        let count = stream.read(&mut chunk).unwrap();
        request.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            break body.to_owned();
        }
    };
    let (status, body) = answer(&body);
    write!(
        stream,
        "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
}

#[test]
fn anchoring_over_http_is_anchoring() {
    let chain = DevChain::in_memory();
    let node = Arc::new(HttpNode::new(&serve(move |request| (200, chain.handle(request)))));
    let worker = signer(9);
    let run = registration(worker.address());
    let client = Client::connect(node.clone(), None).unwrap();
    let record = client.anchor(&head(run.run(), worker.address(), 3), &run, Payer::Device(&worker)).unwrap();
    assert_eq!(client.head(record.run, record.worker, 0).unwrap().map(|head| head.size), Some(3));
    let refused = node.call("eth_mine", json!([]));
    assert!(matches!(refused, Err(ChainError::Rpc { error, .. }) if error.code == -32601));
}

#[test]
fn answers_that_are_no_answers_are_told_apart() {
    let call = |status, body: &'static str| {
        HttpNode::new(&serve(move |_| (status, body.into()))).call("m", json!([]))
    };
    assert!(matches!(call(500, "down"), Err(ChainError::Transport { reason, .. }) if reason.contains("500")));
    assert!(matches!(call(302, ""), Err(ChainError::Transport { .. })), "nobody is followed elsewhere");
    assert!(matches!(call(200, "<html>"), Err(ChainError::Malformed { .. })));
    assert!(matches!(call(200, r#"{"id":1}"#), Err(ChainError::Malformed { .. })));
    assert!(matches!(call(200, "[]"), Err(ChainError::Malformed { .. })));
    assert_eq!(call(200, r#"{"id":1,"result":null,"extra":1}"#).unwrap(), json!(null));
    let limited = call(429, r#"{"error":{"code":-32005,"message":"slow down","data":{"wait":1}}}"#);
    assert!(matches!(limited, Err(ChainError::Rpc { error, .. }) if error.data == Some(json!({"wait": 1}))));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(matches!(
        HttpNode::new(&format!("http://{closed}")).call("m", json!([])),
        Err(ChainError::Transport { .. })
    ));
    assert!(matches!(HttpNode::new("no url").call("m", json!([])), Err(ChainError::Transport { .. })));
}
