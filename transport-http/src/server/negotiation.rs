//! Which framing a client gets: BSON only if it prefers it by name, NDJSON otherwise.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use syncline_core::protocol::Framing;

const BSON: &str = "application/vnd.powersync.bson-stream";
const NDJSON: &str = "application/x-ndjson";

/// The framing for a request. There is no answer 406: whoever accepts neither gets NDJSON.
pub(super) fn framing(headers: &HeaderMap, raw_data: bool) -> Framing {
    let (mut bson, mut ndjson) = (0.0_f32, 0.0_f32);
    for value in headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
        for range in value.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
            match &*media_type {
                BSON => bson = bson.max(quality),
                NDJSON => ndjson = ndjson.max(quality),
                _ => {}
            }
        }
    }
    if bson > ndjson {
        Framing::Bson
    } else if raw_data {
        Framing::Ndjson
    } else {
        Framing::NdjsonNested
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(accept: &[&str]) -> Framing {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(ACCEPT, value.parse().expect("a header value"));
        }
        framing(&headers, true)
    }

    #[test]
    fn bson_is_sent_only_if_it_is_preferred_by_name() {
        assert_eq!(chosen(&["application/vnd.powersync.bson-stream;q=0.9,application/x-ndjson;q=0.8"]), Framing::Bson);
        assert_eq!(chosen(&[BSON]), Framing::Bson);
        assert_eq!(
            chosen(&["application/x-ndjson;q=0.8", "application/vnd.powersync.bson-stream;q=0.9"]),
            Framing::Bson
        );
        for accept in [
            "*/*",
            "application/json",
            NDJSON,
            "application/x-ndjson;q=0.9,application/vnd.powersync.bson-stream;q=0.8",
        ] {
            assert_eq!(chosen(&[accept]), Framing::Ndjson, "{accept}");
        }
        assert_eq!(chosen(&[]), Framing::Ndjson);
        assert_eq!(framing(&HeaderMap::new(), false), Framing::NdjsonNested);
    }
}
