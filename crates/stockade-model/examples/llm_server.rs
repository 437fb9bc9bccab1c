//! Serves a scripted model on a loopback port, for trying real clients against a script:
//! `cargo run -p stockade-model --example llm_server -- SCRIPT.yaml [ADDRESS]`.
//!
//! Every request's path, model and answer status is printed. There is no gate in front of
//! it: this is a bench for scripts and clients, not a gateway.

#![allow(clippy::print_stdout)]

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use stockade_domain::Wire;
use stockade_model::{Script, ScriptedProvider};
use stockade_ports::{ModelError, ModelProvider, ModelRequest};
use tokio::net::TcpListener;

type Body = UnsyncBoxBody<Bytes, ModelError>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let script = arguments.next().ok_or("usage: llm_server SCRIPT.yaml [ADDRESS]")?;
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let provider = Arc::new(ScriptedProvider::new(Script::parse(&std::fs::read_to_string(script)?)?));
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let provider = Arc::clone(&provider);
        tokio::spawn(async move {
            let service = service_fn(move |request| serve(Arc::clone(&provider), request));
            if let Err(error) = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
            {
                println!("connection: {error}");
            }
        });
    }
}

async fn serve(provider: Arc<ScriptedProvider>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let wire = match path.as_str() {
        p if p.ends_with("/messages") => Wire::AnthropicMessages,
        p if p.ends_with("/chat/completions") => Wire::OpenaiChat,
        p if p.ends_with("/responses") => Wire::OpenaiResponses,
        _ => return Ok(plain(&method, &path, StatusCode::OK)),
    };
    if method != Method::POST {
        return Ok(plain(&method, &path, StatusCode::UPGRADE_REQUIRED));
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return Ok(plain(&method, &path, StatusCode::BAD_REQUEST));
    };
    let call = ModelRequest {
        wire,
        query: parts.uri.query().map(str::to_owned),
        headers: parts.headers,
        body: body.to_bytes(),
    };
    match provider.call(call).await {
        Ok(answer) => {
            println!("{method} {path} {}", answer.status);
            let mut response = Response::new(StreamBody::new(answer.body.map_ok(Frame::data).boxed()).boxed_unsync());
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.headers;
            Ok(response)
        }
        Err(error) => {
            println!("{method} {path} {error}");
            Ok(plain(&method, &path, StatusCode::BAD_GATEWAY))
        }
    }
}

fn plain(method: &Method, path: &str, status: StatusCode) -> Response<Body> {
    println!("{method} {path} {status}");
    let mut response = Response::new(Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}
