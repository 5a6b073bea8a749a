//! PostGIS geometries: (E)WKB as hex text or bytes, shown as GeoJSON or WKT.

use super::super::evaluate::Failure;
use crate::json;
use crate::value::Value;

/// Collections inside each other.
const DEPTH: usize = 16;

/// A geometry. A point without coordinates is empty.
#[derive(Debug)]
enum Geometry {
    Point(Vec<f64>),
    LineString(Vec<Vec<f64>>),
    Polygon(Vec<Vec<Vec<f64>>>),
    /// `MULTI…` and collections: their name in GeoJSON, in WKT, and their members.
    Many(&'static str, &'static str, Vec<Self>),
}

struct Reader<'a> {
    bytes: &'a [u8],
}

fn bad() -> Failure {
    Failure::new("bad-geometry", "this is not a geometry in (E)WKB")
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let (taken, rest) = self.bytes.split_first_chunk::<N>().ok_or_else(bad)?;
        self.bytes = rest;
        Ok(*taken)
    }

    fn integer(&mut self, little: bool) -> Result<u32, Failure> {
        let bytes = self.take()?;
        Ok(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    /// A number of items, each of which takes at least `size` bytes, so that a wrong one cannot ask for much memory.
    fn count(&mut self, little: bool, size: usize) -> Result<usize, Failure> {
        let count = self.integer(little)? as usize;
        if count.saturating_mul(size) > self.bytes.len() { Err(bad()) } else { Ok(count) }
    }

    fn position(&mut self, little: bool, dimensions: usize) -> Result<Vec<f64>, Failure> {
        (0..dimensions)
            .map(|_| {
                let bytes = self.take()?;
                Ok(if little { f64::from_le_bytes(bytes) } else { f64::from_be_bytes(bytes) })
            })
            .collect()
    }

    fn positions(&mut self, little: bool, dimensions: usize) -> Result<Vec<Vec<f64>>, Failure> {
        let count = self.count(little, dimensions * 8)?;
        (0..count).map(|_| self.position(little, dimensions)).collect()
    }

    /// A geometry, and its number of dimensions.
    fn geometry(&mut self, depth: usize) -> Result<(Geometry, Dimensions), Failure> {
        if depth > DEPTH {
            return Err(bad());
        }
        let little = match self.take::<1>()? {
            [0] => false,
            [1] => true,
            _ => return Err(bad()),
        };
        let code = self.integer(little)?;
        if code & 0x2000_0000 != 0 {
            self.integer(little)?;
        }
        // EWKB has flags for Z and M, ISO WKB adds 1000 and 2000.
        let iso = (code & 0x0fff_ffff) / 1000;
        let dimensions = Dimensions {
            z: code & 0x8000_0000 != 0 || iso == 1 || iso == 3,
            m: code & 0x4000_0000 != 0 || iso == 2 || iso == 3,
        };
        let size = dimensions.count();
        let geometry = match (code & 0x0fff_ffff) % 1000 {
            1 => {
                let position = self.position(little, size)?;
                Geometry::Point(if position.iter().all(|part| part.is_nan()) { Vec::new() } else { position })
            }
            2 => Geometry::LineString(self.positions(little, size)?),
            3 => {
                let count = self.count(little, 4)?;
                Geometry::Polygon((0..count).map(|_| self.positions(little, size)).collect::<Result<_, _>>()?)
            }
            kind @ 4..=7 => {
                let count = self.count(little, 5)?;
                let members = (0..count).map(|_| Ok(self.geometry(depth + 1)?.0)).collect::<Result<_, Failure>>()?;
                let (geojson, wkt) = match kind {
                    4 => ("MultiPoint", "MULTIPOINT"),
                    5 => ("MultiLineString", "MULTILINESTRING"),
                    6 => ("MultiPolygon", "MULTIPOLYGON"),
                    _ => ("GeometryCollection", "GEOMETRYCOLLECTION"),
                };
                Geometry::Many(geojson, wkt, members)
            }
            _ => return Err(bad()),
        };
        Ok((geometry, dimensions))
    }
}

#[derive(Debug, Clone, Copy)]
struct Dimensions {
    z: bool,
    m: bool,
}

impl Dimensions {
    fn count(self) -> usize {
        2 + usize::from(self.z) + usize::from(self.m)
    }

    fn suffix(self) -> &'static str {
        match (self.z, self.m) {
            (false, false) => "",
            (true, false) => " Z",
            (false, true) => " M",
            (true, true) => " ZM",
        }
    }
}

/// `None` for NULL and numbers.
fn read(value: &Value) -> Result<Option<(Geometry, Dimensions)>, Failure> {
    let bytes = match value {
        Value::Null | Value::Integer(_) | Value::Real(_) => return Ok(None),
        Value::Blob(blob) => blob.to_vec(),
        Value::Text(text) => {
            let digits: Option<Vec<u8>> =
                text.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect();
            let digits = digits.filter(|digits| digits.len() % 2 == 0).ok_or_else(bad)?;
            digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
        }
    };
    Reader { bytes: &bytes }.geometry(0).map(Some)
}

/// `x` (0) or `y` (1) of a point; NULL for anything else.
pub(super) fn coordinate(value: &Value, index: usize) -> Result<Value, Failure> {
    Ok(match read(value)? {
        Some((Geometry::Point(position), _)) => position.get(index).map_or(Value::Null, |part| Value::Real(*part)),
        _ => Value::Null,
    })
}

/// GeoJSON; coordinates are written as reals.
pub(super) fn as_geojson(value: &Value) -> Result<Value, Failure> {
    let Some((geometry, _)) = read(value)? else { return Ok(Value::Null) };
    let mut out = Vec::new();
    geojson(&geometry, &mut out);
    Ok(Value::text(String::from_utf8_lossy(&out).into_owned()))
}

fn separated<T>(items: &[T], out: &mut Vec<u8>, write: impl Fn(&T, &mut Vec<u8>)) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(b']');
}

fn geojson(geometry: &Geometry, out: &mut Vec<u8>) {
    let name = match geometry {
        Geometry::Point(_) => "Point",
        Geometry::LineString(_) => "LineString",
        Geometry::Polygon(_) => "Polygon",
        Geometry::Many(name, ..) => name,
    };
    out.extend_from_slice(format!("{{\"type\":\"{name}\",").as_bytes());
    match geometry {
        Geometry::Many("GeometryCollection", _, members) => {
            out.extend_from_slice(b"\"geometries\":");
            separated(members, out, geojson);
        }
        other => {
            out.extend_from_slice(b"\"coordinates\":");
            coordinates(other, out);
        }
    }
    out.push(b'}');
}

fn coordinates(geometry: &Geometry, out: &mut Vec<u8>) {
    let position = |position: &Vec<f64>, out: &mut Vec<u8>| {
        separated(position, out, |part, out| json::write_real(out, *part));
    };
    match geometry {
        Geometry::Point(point) => position(point, out),
        Geometry::LineString(line) => separated(line, out, position),
        Geometry::Polygon(rings) => separated(rings, out, |ring, out| separated(ring, out, position)),
        Geometry::Many(_, _, members) => separated(members, out, coordinates),
    }
}

/// WKT, as in `POINT Z (1 2 3)`.
pub(super) fn as_text(value: &Value) -> Result<Value, Failure> {
    let Some((geometry, dimensions)) = read(value)? else { return Ok(Value::Null) };
    Ok(Value::text(tagged(&geometry, dimensions)))
}

fn tagged(geometry: &Geometry, dimensions: Dimensions) -> String {
    let name = match geometry {
        Geometry::Point(_) => "POINT",
        Geometry::LineString(_) => "LINESTRING",
        Geometry::Polygon(_) => "POLYGON",
        Geometry::Many(_, name, _) => name,
    };
    let suffix = dimensions.suffix();
    let gap = if suffix.is_empty() { "" } else { " " };
    match body(geometry, dimensions) {
        Some(body) => format!("{name}{suffix}{gap}({body})"),
        None => format!("{name}{suffix} EMPTY"),
    }
}

/// What stands in the parentheses; `None` for an empty geometry.
fn body(geometry: &Geometry, dimensions: Dimensions) -> Option<String> {
    let position =
        |position: &Vec<f64>| position.iter().map(|part| json::shortest_real(*part)).collect::<Vec<_>>().join(" ");
    let line = |line: &Vec<Vec<f64>>| line.iter().map(position).collect::<Vec<_>>().join(",");
    let parts: Vec<String> = match geometry {
        Geometry::Point(point) => return (!point.is_empty()).then(|| position(point)),
        Geometry::LineString(points) => points.iter().map(position).collect(),
        Geometry::Polygon(rings) => rings.iter().map(|ring| format!("({})", line(ring))).collect(),
        Geometry::Many(_, "GEOMETRYCOLLECTION", members) => {
            members.iter().map(|member| tagged(member, dimensions)).collect()
        }
        Geometry::Many(_, "MULTIPOINT", members) => {
            members.iter().map(|member| body(member, dimensions).unwrap_or_else(|| "EMPTY".into())).collect()
        }
        Geometry::Many(_, _, members) => {
            let member = |member| body(member, dimensions).map_or_else(|| "EMPTY".into(), |body| format!("({body})"));
            members.iter().map(member).collect()
        }
    };
    (!parts.is_empty()).then(|| parts.join(","))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn points_and_lines_are_shown() {
        let point = Value::text("0101000020E6100000000000000000F03F0000000000000040");
        assert_eq!(as_text(&point).unwrap(), "POINT(1 2)".into());
        assert_eq!(as_geojson(&point).unwrap(), r#"{"type":"Point","coordinates":[1.0,2.0]}"#.into());
        assert_eq!(coordinate(&point, 1).unwrap(), Value::Real(2.0));
        let high = Value::text("0101000080000000000000f03f00000000000000400000000000000840");
        assert_eq!(as_text(&high).unwrap(), "POINT Z (1 2 3)".into());
        let line = "01020000000200000000000000000000000000000000000000000000000000f03f000000000000f83f";
        assert_eq!(as_text(&line.into()).unwrap(), "LINESTRING(0 0,1 1.5)".into());
        assert_eq!(coordinate(&line.into(), 0).unwrap(), Value::Null);
    }

    #[test]
    fn what_is_no_geometry_fails() {
        for text in ["zz", "", "0101", "0102000000ffffffff", "01070000000100000001"] {
            assert_eq!(as_text(&text.into()).unwrap_err().kind, "bad-geometry", "{text:?}");
        }
        assert_eq!(as_text(&Value::Integer(5)).unwrap(), Value::Null);
    }
}
