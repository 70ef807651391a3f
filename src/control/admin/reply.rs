//! One answer of the Admin API before it becomes HTTP.

use http_body_util::Full;
use hyper::Response;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::HeaderName;
use hyper::header::HeaderValue;
use serde_json::Value;

const JSON: &str = "application/json; charset=utf-8";
const HTML: &str = "text/html; charset=UTF-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Status, body and what else has to be in the head.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub content_type: Option<&'static str>,
    pub body: String,
    pub headers: Vec<(&'static str, String)>,
}

impl Reply {
    pub fn json(status: StatusCode, body: &Value) -> Reply {
        Reply::rendered(status, body.to_string())
    }

    /// A JSON text that needs no serialising.
    pub fn rendered(status: StatusCode, body: String) -> Reply {
        Reply { status, content_type: Some(JSON), body, headers: Vec::new() }
    }

    pub fn empty() -> Reply {
        Reply { status: StatusCode::NO_CONTENT, content_type: None, body: String::new(), headers: Vec::new() }
    }

    pub fn text(status: StatusCode, text: &str) -> Reply {
        Reply { status, content_type: Some(TEXT), body: text.to_string(), headers: Vec::new() }
    }

    /// The short page that says what the status says.
    pub fn page(status: StatusCode) -> Reply {
        let reason = match status {
            StatusCode::PAYLOAD_TOO_LARGE => "Request Entity Too Large",
            StatusCode::METHOD_NOT_ALLOWED => "Not Allowed",
            other => other.canonical_reason().unwrap_or_default(),
        };
        let title = format!("{} {reason}", status.as_u16());
        let body = format!(
            "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n</body>\r\n</html>\r\n"
        );
        Reply { status, content_type: Some(HTML), body, headers: Vec::new() }
    }

    pub fn with(mut self, name: &'static str, value: impl ToString) -> Reply {
        self.headers.push((name, value.to_string()));
        self
    }

    /// The HTTP response. A header value that HTTP cannot carry is left out.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(content_type) = self.content_type {
            headers.insert(hyper::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        for (name, value) in self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
        response
    }
}
