//! The fields that an expression may ask about (spec/router.md section 14.4).

/// One field of a request.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::router) enum Field {
    Protocol,
    Sni,
    Method,
    /// Without its port.
    Host,
    Path,
    /// Of the path, counted from 0.
    Segment(usize),
    /// From the first to the last, both included.
    Segments(usize, usize),
    SegmentCount,
    /// Lower-case, with `-` for `_`.
    Header(Box<str>),
    Argument(Box<[u8]>),
    SourceIp,
    SourcePort,
    DestinationIp,
    DestinationPort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router) enum Type {
    Text,
    Int,
    Ip,
}

/// Why there is no such field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router) enum NoField {
    Unknown,
    Segments,
}

impl Field {
    pub fn of(name: &str) -> Result<Self, NoField> {
        if let Some(name) = name.strip_prefix("http.headers.").filter(|name| !name.is_empty()) {
            return Ok(Self::Header(name.to_ascii_lowercase().replace('_', "-").into()));
        }
        if let Some(name) = name.strip_prefix("http.queries.").filter(|name| !name.is_empty()) {
            return Ok(Self::Argument(name.as_bytes().into()));
        }
        if let Some(place) = name.strip_prefix("http.path.segments.") {
            return Self::segments(place).ok_or(NoField::Segments);
        }
        Ok(match name {
            "net.protocol" => Self::Protocol,
            "tls.sni" => Self::Sni,
            "http.method" => Self::Method,
            "http.host" => Self::Host,
            "http.path" => Self::Path,
            "net.src.ip" => Self::SourceIp,
            "net.src.port" => Self::SourcePort,
            "net.dst.ip" => Self::DestinationIp,
            // `net.port` is its older name.
            "net.dst.port" | "net.port" => Self::DestinationPort,
            _ => return Err(NoField::Unknown),
        })
    }

    fn segments(place: &str) -> Option<Self> {
        let number = |text: &str| {
            let plain = text == "0" || !text.starts_with('0');
            text.parse::<usize>().ok().filter(|_| plain && text.bytes().all(|byte| byte.is_ascii_digit()))
        };
        if place == "len" {
            return Some(Self::SegmentCount);
        }
        match place.split_once('_') {
            None => number(place).map(Self::Segment),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                (first < last).then_some(Self::Segments(first, last))
            }
        }
    }

    pub fn kind(&self) -> Type {
        match self {
            Self::SegmentCount | Self::SourcePort | Self::DestinationPort => Type::Int,
            Self::SourceIp | Self::DestinationIp => Type::Ip,
            _ => Type::Text,
        }
    }
}
