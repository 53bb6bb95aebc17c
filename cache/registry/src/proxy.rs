//! Proxies: who is asked to reach a host.

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{NoProxy, Proxy, Url};

use crate::{credentials::Secret, error::Fault, settings::Proxies};

/// Hosts that no proxy is asked for: it would look for its own loopback, not for ours.
const OWN: &str = "localhost,127.0.0.0/8,::1";

impl Proxies {
    /// As the HTTP client takes them.
    ///
    /// # Errors
    /// [`Fault::Setup`]: an address cannot be used. It is not told, because it may hold a password.
    pub(crate) fn configured(&self) -> Result<Vec<Proxy>, Fault> {
        let except = NoProxy::from_string(&self.exceptions());
        let mut all = Vec::new();
        for (name, text) in [("HTTP_PROXY", &self.http), ("HTTPS_PROXY", &self.https)] {
            let Some(text) = text.as_ref().map(Secret::reveal).filter(|text| !text.is_empty()) else {
                continue;
            };
            let bad = |why: &str| Fault::Setup { why: format!("the proxy's address in {name} {why}") };
            // Without a scheme it is plain HTTP. One that is not known would be left out without a word.
            if !matches!(text.split_once("://"), None | Some(("http" | "https", _))) {
                return Err(bad("begins neither with http:// nor with https://"));
            }
            let made = if name == "HTTP_PROXY" { Proxy::http(text) } else { Proxy::https(text) };
            all.push(made.map_err(|_| bad("is no URL"))?.no_proxy(except.clone()));
        }
        Ok(all)
    }

    /// Host and port of the proxy that an address is reached through, by the rules of the HTTP client.
    pub(crate) fn of(&self, url: &Url) -> Option<String> {
        let text = |secret: &Option<Secret>| secret.as_ref().map_or("", Secret::reveal).to_owned();
        let rules = Matcher::builder().http(text(&self.http)).https(text(&self.https)).no(self.exceptions());
        let found = rules.build().intercept(&url.as_str().parse().ok()?)?;
        let host = found.uri().host()?;
        Some(found.uri().port_u16().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
    }

    fn exceptions(&self) -> String {
        format!("{OWN},{}", self.except.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_told_without_its_password() {
        let proxies = Proxies {
            http: Some(Secret::new("proxy.lab")),
            https: Some(Secret::new("http://ada:hunter2@proxy.lab:3128/")),
            except: Some("direct.lab,10.0.0.0/8".to_owned()),
        };
        for (url, proxy) in [
            ("https://registry.lab:5000/v2/", Some("proxy.lab:3128")),
            ("http://registry.lab/v2/", Some("proxy.lab")),
            ("https://direct.lab/v2/", None),
            ("https://10.1.2.3/v2/", None),
            ("https://127.0.0.1:5000/v2/", None),
            ("http://localhost:5000/v2/", None),
        ] {
            assert_eq!(proxies.of(&url.parse().expect(url)).as_deref(), proxy, "{url}");
        }
        assert_eq!(proxies.configured().expect("addresses").len(), 2);
        assert_eq!(Proxies::default().of(&"https://registry.lab".parse().expect("a URL")), None);
    }

    #[test]
    fn an_address_that_cannot_be_used_is_refused_and_not_told() {
        for text in ["ftp://ada:hunter2@proxy", "socks5://ada:hunter2@proxy", "http://ada:hunter2@a b"] {
            let proxies = Proxies { https: Some(Secret::new(text)), ..Proxies::default() };
            let error = proxies.configured().expect_err(text).to_string();
            assert!(error.contains("HTTPS_PROXY") && !error.contains("hunter2"), "{error}");
        }
        let none = Proxies { http: Some(Secret::new("")), ..Proxies::default() };
        assert!(none.configured().expect("no proxy").is_empty());
    }
}
