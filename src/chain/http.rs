//! JSON-RPC over HTTP: the only place of the chain module that opens a socket.

mod environment;

use std::io::ErrorKind;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use ureq::http::{StatusCode, Uri};

use environment::Route;

use super::{ChainError, Node, RpcError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(25);
const LARGEST_ANSWER: u64 = 16 << 20;

const MOST_TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// No try begins later than this after the first: a call ends within a minute, and what timed out
/// is sent at most twice.
const LAST_BEGIN: Duration = Duration::from_secs(35);

/// Codes that judge the request itself: a revert and an unknown method.
const FINAL_CODES: [i64; 2] = [3, -32601];
/// Codes for "slow down": EIP-1474's, and HTTP's repeated as a code.
const BUSY_CODES: [i64; 2] = [-32005, 429];
/// Gateways number it differently (-32007, -32016, -32029, -32090, -32605) and reuse each other's
/// numbers for other errors, so what they say decides.
const BUSY_WORDS: [&str; 3] = ["rate limit", "too many requests", "request limit"];

/// A node behind an `http://` or `https://` address.
///
/// What may pass by itself is tried again: a refused, broken or silent connection, HTTP status 429,
/// 502, 503 and 504, and JSON-RPC errors that ask to slow down. At most four tries are made, with
/// doubling pauses or the longer one that `Retry-After` asks for, up to 30 seconds; a call ends
/// within a minute. Every method may be repeated: reads change nothing, and a signed transaction is
/// one transaction however often it is sent.
///
/// # Environment
/// `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, lower case before upper case, mean what
/// they mean to curl. A loopback address is no exception, as for curl and Python's requests: name it
/// in `no_proxy`. An `http://` address too is reached by CONNECT, so the proxy must allow its port.
///
/// The certificates in `SSL_CERT_FILE`, `SSL_CERT_DIR`, `REQUESTS_CA_BUNDLE` and `CURL_CA_BUNDLE`
/// are trusted instead of the built-in roots, as OpenSSL does it: whoever names an authority may
/// want no other. Where several are set, all of them count.
#[derive(Debug)]
pub struct HttpNode {
    url: String,
    route: Result<Route, String>,
}

impl HttpNode {
    /// Names the node and reads the environment; nothing is sent yet. What is wrong with either is
    /// reported by the first call.
    pub fn new(url: &str) -> Self {
        Self { url: url.to_owned(), route: Route::from_environment(url) }
    }

    fn attempt(&self, route: &Route, method: &str, request: &str) -> Result<Value, Failure> {
        let unsent = |error| Failure::transport(method, route, error);
        let mut response = route
            .agent
            .post(&self.url)
            .header("content-type", "application/json")
            .send(request)
            .map_err(unsent)?;
        let status = response.status();
        let asked = response.headers().get("retry-after").and_then(|value| pause(value.to_str().ok()?));
        let body = response.body_mut().with_config().limit(LARGEST_ANSWER).read_to_vec().map_err(unsent)?;
        read_answer(method, status, &body).map_err(|error| {
            let again = passes(status, &error).then(|| asked.unwrap_or_default());
            Failure { error, again }
        })
    }
}

impl Node for HttpNode {
    fn call(&self, method: &str, params: Value) -> Result<Value, ChainError> {
        let route = self.route.as_ref().map_err(|reason| transport(method, reason.clone()))?;
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let begin = Instant::now();
        let mut tries = 1;
        loop {
            let Failure { error, again } = match self.attempt(route, method, &request) {
                Ok(result) => return Ok(result),
                Err(failure) => failure,
            };
            let Some(asked) = again else { return Err(error) };
            let wait = asked.clamp(FIRST_PAUSE * 2u32.pow(tries - 1), LONGEST_PAUSE);
            if tries == MOST_TRIES || begin.elapsed() + wait > LAST_BEGIN {
                return Err(given_up(error, tries, begin.elapsed()));
            }
            std::thread::sleep(wait);
            tries += 1;
        }
    }
}

/// A try that failed, and the pause that the node asks for where another may succeed.
struct Failure {
    error: ChainError,
    again: Option<Duration>,
}

impl Failure {
    fn transport(method: &str, route: &Route, error: ureq::Error) -> Self {
        if let ureq::Error::BodyExceedsLimit(most) = error {
            let reason = format!("it is larger than {} MiB", most >> 20);
            return Self { error: malformed(method, reason), again: None };
        }
        let passes = match &error {
            ureq::Error::Timeout(_) => true,
            ureq::Error::Io(error) => matches!(
                error.kind(),
                ErrorKind::ConnectionRefused
                    | ErrorKind::ConnectionReset
                    | ErrorKind::ConnectionAborted
                    | ErrorKind::BrokenPipe
                    | ErrorKind::UnexpectedEof
                    | ErrorKind::TimedOut
                    | ErrorKind::HostUnreachable
                    | ErrorKind::NetworkUnreachable
            ),
            _ => false,
        };
        let reason = format!("{error}{}", route.named_by());
        Self { error: transport(method, reason), again: passes.then_some(Duration::ZERO) }
    }
}

/// Whether the same request may be answered a moment later.
fn passes(status: StatusCode, error: &ChainError) -> bool {
    if let ChainError::Rpc { error, .. } = error {
        let message = error.message.to_lowercase();
        if FINAL_CODES.contains(&error.code) {
            return false;
        }
        if BUSY_CODES.contains(&error.code) || BUSY_WORDS.iter().any(|words| message.contains(words)) {
            return true;
        }
    }
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

fn given_up(mut error: ChainError, tries: u32, spent: Duration) -> ChainError {
    if let ChainError::Transport { reason: text, .. }
    | ChainError::Rpc { error: RpcError { message: text, .. }, .. } = &mut error
    {
        *text += &format!(" (gave up after {tries} of {MOST_TRIES} tries in {:.1} s)", spent.as_secs_f64());
    }
    error
}

/// Reads `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.
fn pause(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(Duration::from_secs(seconds_of(text)?).saturating_sub(now))
}

/// Unix seconds of an HTTP date.
fn seconds_of(date: &str) -> Option<u64> {
    // The one form that a server may still send: Sun, 06 Nov 1994 08:49:37 GMT.
    let [_, day, month, year, time, "GMT"] = date.split(' ').collect::<Vec<_>>()[..] else { return None };
    const MONTHS: [&str; 12] =
        ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    let month = MONTHS.iter().position(|name| *name == month)? as u64;
    // Years are counted from March, so that the leap day is their last.
    let year = u64::from(year.parse::<u16>().ok()?).checked_sub(u64::from(month >= 10))?;
    let day = 365 * year + year / 4 - year / 100
        + year / 400
        + (153 * month + 2) / 5
        + u64::from(day.parse::<u8>().ok()?);
    let [hour, minute, second] = time.split(':').collect::<Vec<_>>()[..] else { return None };
    let clock = |part: &str| part.parse::<u8>().ok().map(u64::from);
    let seconds = clock(hour)? * 3600 + clock(minute)? * 60 + clock(second)?;
    Some(day.checked_sub(719_469)? * 86_400 + seconds)
}

/// Reads the result out of an answer. Its id is not compared: every request has its own exchange,
/// which pairs the two already, and some gateways send errors with another id or none.
fn read_answer(method: &str, status: StatusCode, body: &[u8]) -> Result<Value, ChainError> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let reason = match serde_json::from_slice::<Value>(body) {
        Ok(mut answer) => {
            if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
                let error = RpcError {
                    code: error["code"].as_i64().unwrap_or_default(),
                    message: error["message"].as_str().map_or_else(|| error.to_string(), str::to_owned),
                    data: error.get("data").cloned(),
                };
                return Err(ChainError::Rpc { method: method.into(), error });
            }
            if let Some(result) = answer.as_object_mut().and_then(|members| members.remove("result")) {
                return Ok(result);
            }
            "neither result nor error".to_owned()
        }
        Err(error) => error.to_string(),
    };
    // Nodes send JSON-RPC errors under many statuses, so the status matters only without one.
    if status.is_success() {
        Err(malformed(method, reason))
    } else {
        Err(transport(method, format!("HTTP status {status}")))
    }
}

/// An address as anybody may read it: who is named in it, and what follows the host, can be secrets.
pub(super) fn shown(address: &str) -> String {
    let uri = address.parse::<Uri>().unwrap_or_default();
    let (Some(scheme), Some(host)) = (uri.scheme(), uri.host()) else { return "...".into() };
    let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    let begin = format!("{scheme}://{host}{port}");
    match address.trim_end_matches('/') == begin {
        true => begin,
        false => format!("{begin}/..."),
    }
}

fn transport(method: &str, reason: String) -> ChainError {
    ChainError::Transport { method: method.into(), reason }
}

fn malformed(method: &str, reason: String) -> ChainError {
    ChainError::Malformed { method: method.into(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys of gateways lie in paths, queries and names, and messages are copied into issues and logs.
    #[test]
    fn an_address_is_shown_without_its_secrets() {
        let cases = [
            ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
            ("https://node.example/", "https://node.example"),
            ("https://node.example/v3/SECRET", "https://node.example/..."),
            ("https://node.example?key=SECRET", "https://node.example/..."),
            ("https://user:SECRET@node.example:8545", "https://node.example:8545/..."),
            ("ftp://[::1]:1/SECRET", "ftp://[::1]:1/..."),
            ("https://SECRET host/", "..."),
            ("node.example/v3/SECRET", "..."),
            ("https://", "..."),
        ];
        for (address, expected) in cases {
            assert_eq!(shown(address), expected);
        }
        for address in ["https://SEC RET/", "https:///SECRET", "ftp://SECRET@host/SECRET", "SECRET@host"] {
            let refused = HttpNode::new(address).call("m", json!([])).expect_err("no node");
            assert!(!refused.to_string().contains("SEC"), "{refused}");
        }
    }

    /// A calendar that errs in leap years waits a day or not at all.
    #[test]
    fn dates_are_those_of_pythons_email_utils() {
        let known = [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Tue, 29 Feb 2000 12:00:00 GMT", 951_825_600),
            ("Thu, 29 Feb 2024 23:59:59 GMT", 1_709_251_199),
            ("Fri, 01 Mar 2024 00:00:00 GMT", 1_709_251_200),
            ("Wed, 31 Jan 2029 01:02:03 GMT", 1_864_515_723),
            ("Sun, 28 Feb 2100 00:00:00 GMT", 4_107_456_000),
            ("Mon, 01 Mar 2100 00:00:00 GMT", 4_107_542_400),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
        ];
        for (date, seconds) in known {
            assert_eq!(seconds_of(date), Some(seconds), "{date}");
        }
        for no_date in [
            "",
            "Wed, 31 Dec 1969 23:59:59 GMT",
            "Sat, 00 Jan 0000 00:00:00 GMT",
            "Sun, 06 Nov 99999 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Nom 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
        ] {
            assert_eq!(seconds_of(no_date), None, "{no_date}");
        }
    }
}
