//! A small HTTP server for one page of text: what a monitoring system asks for now and then. Every wait is bounded, and
//! so is the number of those who may ask at a time.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Who asks beyond that waits until the system's own queue is full.
const CONNECTIONS_MAX: usize = 8;
/// From the first byte to the last of a connection.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(30);
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
const HEADERS_MAX: usize = 64;
const BUFFER_BYTES_MAX: usize = 16 << 10;
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What makes the text; it may block.
pub type Page = Arc<dyn Fn() -> String + Send + Sync>;

/// Serves `page` under `path` until the future is dropped; every other path is not found.
pub async fn serve(listener: TcpListener, path: &'static str, content_type: &'static str, page: Page) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let page = page.clone();
                tokio::spawn(async move {
                    let _ = timeout(CONNECTION_DEADLINE, converse(stream, path, content_type, page)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics was not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, path: &'static str, content_type: &'static str, page: Page) {
    let service = service_fn(move |request: Request<Incoming>| {
        let page = page.clone();
        async move { Ok::<_, Infallible>(answer(&request, path, content_type, page).await) }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = serving.await {
        tracing::debug!(%error, "a connection for metrics ended early");
    }
}

async fn answer(
    request: &Request<Incoming>,
    path: &str,
    content_type: &'static str,
    page: Page,
) -> Response<Full<Bytes>> {
    if request.uri().path() != path {
        return plain(StatusCode::NOT_FOUND, format!("there is nothing but {path}\n"));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "it can only be read\n".into());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match tokio::task::spawn_blocking(move || page()).await {
        Ok(text) => {
            let mut response = plain(StatusCode::OK, text);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            response
        }
        Err(error) => {
            tracing::error!(%error, "the page could not be made");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be made\n".into())
        }
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(address: std::net::SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // One that is refused early may be reset.
        _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_page_is_served_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, "/metrics", "text/x", Arc::new(|| "content\n".into())));
        let good = ask(address, b"GET /metrics?x HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert!(good.starts_with("HTTP/1.1 200") && good.ends_with("\r\n\r\ncontent\n"), "{good}");
        assert!(good.contains("content-type: text/x"), "{good}");
        let head = ask(address, b"HEAD /metrics HTTP/1.0\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.0 200") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(ask(address, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.starts_with("HTTP/1.1 404"));
        let post = ask(address, b"POST /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").await;
        assert!(post.starts_with("HTTP/1.1 405"), "{post}");
        let endless = [&b"GET /metrics HTTP/1.1\r\nX: "[..], &vec![b'x'; 2 * BUFFER_BYTES_MAX]].concat();
        assert!(!ask(address, &endless).await.contains("200"));
        serving.abort();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_silent_keep_nobody_waiting_for_ever() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, "/metrics", "text/x", Arc::new(|| "content\n".into())));
        let mut silent = Vec::new();
        for _ in 0..2 * CONNECTIONS_MAX {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let good = ask(address, b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert!(good.ends_with("content\n"), "{good}");
        serving.abort();
    }
}
