//! Any file of the web, over the connections by which registries are asked: the same certificates, proxies, names and
//! limits.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{
    Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue},
};

use crate::{
    Client, Secret,
    error::Fault,
    retry,
    transport::Trust,
    wire::{Call, Pace, chunk, refusal},
};

/// A GET of an address that need not be a registry's.
#[derive(Clone, Debug)]
pub struct WebRequest<'a> {
    /// The address: `https://host/path?query`. A user and a password in it are sent as basic authentication.
    pub url: &'a str,
    /// What the request says, by names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The value of `Authorization`; sent to this host and to none that it redirects to.
    pub authorization: Option<&'a Secret>,
    /// The first byte that is wanted, when it is not the first that there is.
    pub from: Option<u64>,
}

/// An answer whose body has not been read yet.
#[derive(Debug)]
pub struct WebAnswer {
    response: Response,
    pace: Pace,
    idle: Duration,
}

impl Client {
    /// Asks once, and follows redirects.
    ///
    /// # Errors
    /// Every answer but success, 304 and 416; and all that prevents one. [`Client::wait_after`] tells whether to ask again.
    pub async fn web(&self, request: &WebRequest<'_>) -> Result<WebAnswer, Fault> {
        let setup = |why: &str| Fault::Setup { why: why.to_owned() };
        let url: Url = request.url.parse().map_err(|_| setup("the address is no URL"))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &request.headers {
            let value = HeaderValue::from_str(value).map_err(|_| setup("a header cannot have this value"))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        let authorization = request.authorization.map(|secret| {
            let mut value = HeaderValue::from_str(secret.reveal())
                .map_err(|_| setup("the login has characters that a header cannot have"))?;
            value.set_sensitive(true);
            Ok::<_, Fault>(value)
        });
        let trust = if url.scheme() == "http" { Trust::Plain } else { Trust::System };
        let (from, authorization) = (request.from, authorization.transpose()?);
        let login =
            authorization.is_some() || !url.username().is_empty() || headers.contains_key(AUTHORIZATION);
        let idle = self.limits().idle;
        let call = Call { from, authorization, headers, ..Call::get(url, &trust) };
        let response = self.transports().send(call, idle).await?.response;
        match response.status() {
            StatusCode::NOT_MODIFIED | StatusCode::RANGE_NOT_SATISFIABLE => {
                Ok(WebAnswer { response, pace: Pace::new(), idle })
            }
            status if status.is_success() => Ok(WebAnswer { response, pace: Pace::new(), idle }),
            _ => Err(refusal(response, login, idle).await),
        }
    }

    /// How long to wait before a request is repeated that has failed `failures` times before this fault; none where it is not to be
    /// repeated.
    pub fn wait_after(&self, fault: &Fault, failures: u32) -> Option<Duration> {
        retry::wait(self.limits(), fault.retry(), failures)
    }
}

impl WebAnswer {
    /// The status: a success, 304 or 416.
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// The first header of a name, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// A header that is a date (RFC 9110, § 5.6.7), in seconds since 1970.
    pub fn date(&self, name: &str) -> Option<u64> {
        retry::http_date(self.header(name)?.trim())
    }

    /// How many bytes the body has, where the server says so.
    pub fn length(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// The next bytes of the body; `None` at its end.
    ///
    /// # Errors
    /// The connection broke, or nothing came for too long.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        chunk(&mut self.response, &mut self.pace, self.idle).await
    }
}
