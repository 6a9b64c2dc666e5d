//! The way to a node: the proxy and the certificate authorities that the environment names.

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use ureq::http::Uri;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Proxy, ProxyProtocol};

use super::{CALL_TIMEOUT, CONNECT_TIMEOUT};

const AUTHORITIES: [&str; 4] = ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];

#[derive(Debug)]
pub(super) struct Route {
    pub(super) agent: Agent,
    /// The variables that shaped it.
    variables: Vec<&'static str>,
}

impl Route {
    /// # Errors
    /// What is wrong with the address, or with the value of which variable.
    pub(super) fn from_environment(url: &str) -> Result<Self, String> {
        // It is not repeated: it may hold a key.
        let uri: Uri = url.parse().map_err(|refused| format!("the node's address is none: {refused}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err("the node's address is none: it begins with http:// or https:// and a host".into());
        }
        let mut variables = Vec::new();
        let proxy = proxy(&uri, &mut variables)?;
        let encrypted = proxy.as_ref().is_some_and(|proxy| proxy.protocol() == ProxyProtocol::Https);
        let roots = match uri.scheme_str() {
            Some("http") if !encrypted => RootCerts::WebPki,
            _ => roots(&mut variables)?,
        };
        let agent = Agent::config_builder()
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(CALL_TIMEOUT))
            .max_redirects(0)
            .http_status_as_error(false)
            .proxy(proxy)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build()
            .new_agent();
        Ok(Self { agent, variables })
    }

    /// Names the variables, for the errors that they may have caused.
    pub(super) fn named_by(&self) -> String {
        if self.variables.is_empty() {
            return String::new();
        }
        format!(" (the environment sets {})", self.variables.join(", "))
    }
}

fn value(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// ureq reads these variables too, but sends every address to the first that is set, takes the
/// names of `no_proxy` literally and knows no address ranges; curl and Python do otherwise.
fn proxy(uri: &Uri, variables: &mut Vec<&'static str>) -> Result<Option<Proxy>, String> {
    let own = if uri.scheme_str() == Some("https") {
        ["https_proxy", "HTTPS_PROXY"]
    } else {
        ["http_proxy", "HTTP_PROXY"]
    };
    let mut names = own.into_iter().chain(["all_proxy", "ALL_PROXY"]);
    let Some((name, address)) = names.find_map(|name| Some((name, value(name)?))) else { return Ok(None) };
    if uri.host().is_some_and(excepted) {
        return Ok(None);
    }
    variables.push(name);
    // The value is not repeated: it may hold a password.
    let proxy = address.to_str().and_then(|address| Proxy::new(address).ok());
    proxy.map(Some).ok_or_else(|| format!("{name} names no proxy, expected http://host:port"))
}

/// Whether `no_proxy` lists the host: itself, a domain above it, a range of addresses, or `*`.
fn excepted(host: &str) -> bool {
    let list = ["no_proxy", "NO_PROXY"].into_iter().find_map(value).unwrap_or_default();
    let list = list.to_string_lossy().to_lowercase();
    let host = host.trim_matches(['[', ']']).to_lowercase();
    list.split([',', ' ']).filter(|entry| !entry.is_empty()).any(|entry| {
        let domain = entry.trim_start_matches('*').trim_start_matches('.');
        match host.parse::<IpAddr>() {
            Ok(address) => entry == "*" || holds(entry, address),
            Err(_) => {
                host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                    || entry == "*"
            }
        }
    })
}

/// Whether an address, or a range such as `10.0.0.0/8`, holds `address`.
fn holds(range: &str, address: IpAddr) -> bool {
    let (first, bits) = range.split_once('/').unwrap_or((range, "128"));
    let Ok(bits) = bits.parse::<u32>() else { return false };
    match (first.trim_matches(['[', ']']).parse(), address) {
        (Ok(IpAddr::V4(first)), IpAddr::V4(address)) => {
            (first.to_bits() ^ address.to_bits()).leading_zeros() >= bits.min(32)
        }
        (Ok(IpAddr::V6(first)), IpAddr::V6(address)) => {
            (first.to_bits() ^ address.to_bits()).leading_zeros() >= bits.min(128)
        }
        _ => false,
    }
}

fn roots(variables: &mut Vec<&'static str>) -> Result<RootCerts, String> {
    let mut found = Vec::new();
    for (name, paths) in AUTHORITIES.into_iter().filter_map(|name| Some((name, value(name)?))) {
        variables.push(name);
        let before = found.len();
        for path in std::env::split_paths(&paths) {
            let refused = |error| format!("{name} names {}, which cannot be read: {error}", path.display());
            found.extend(certificates(&path).map_err(refused)?);
        }
        if found.len() == before {
            let paths = Path::new(&paths).display();
            return Err(format!("{name} names {paths}, which holds no certificate in PEM form"));
        }
    }
    Ok(if found.is_empty() { RootCerts::WebPki } else { found.into() })
}

/// The certificates of a file, or of the files in a folder; other files may lie there too.
fn certificates(path: &Path) -> io::Result<Vec<Certificate<'static>>> {
    if !path.is_dir() {
        return read(path);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path)? {
        found.extend(read(&entry?.path()).unwrap_or_default());
    }
    Ok(found)
}

fn read(file: &Path) -> io::Result<Vec<Certificate<'static>>> {
    let mut found = Vec::new();
    for item in parse_pem(&std::fs::read(file)?) {
        if let PemItem::Certificate(certificate) = item.map_err(io::Error::other)? {
            found.push(certificate);
        }
    }
    Ok(found)
}
