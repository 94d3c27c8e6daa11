//! A bare hyper server: it reads a request and answers it with what it was given, and does nothing else.

use std::convert::Infallible;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::Outcome;
use crate::options;
use crate::wire::Head;

/// As avatar-proxy's own.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

struct Answer {
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn read(bytes: &[u8]) -> Outcome<Self> {
        let head = Head::read(bytes)?.ok_or("the answer has no head")?;
        let mut headers = HeaderMap::new();
        for line in std::str::from_utf8(&bytes[..head.bytes])?.lines().skip(1) {
            let Some((name, value)) = line.split_once(':') else { continue };
            let name: HeaderName = name.parse()?;
            // hyper writes these by itself.
            if ![CONTENT_LENGTH, DATE, CONNECTION].contains(&name) {
                headers.append(name, HeaderValue::from_str(value.trim())?);
            }
        }
        Ok(Self { headers, body: Bytes::copy_from_slice(&bytes[head.bytes..]) })
    }

    fn response(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body.clone()));
        *response.headers_mut() = self.headers.clone();
        response
    }
}

/// The role itself. Ends when its standard input does, so that it never outlives whoever started it.
pub(crate) fn run(options: &options::Bare) -> Outcome {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let answer = Arc::new(Answer::read(&std::fs::read(&options.answer)?)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(options.listen).await?;
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let answer = Arc::clone(&answer);
            let service = service_fn(move |_| {
                let response = answer.response();
                async move { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    })
}
