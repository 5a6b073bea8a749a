//! Dates and times: from the ISO form of Postgres to that which the sync config asks for.

use syncline_core::{TimePrecision, ValueOptions};

/// How times look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeForm {
    /// Between date and time.
    separator: char,
    /// The digits after the point that a value is given; `None` are those that are sent.
    digits: Option<usize>,
}

impl TimeForm {
    /// Postgres has six digits: with more there would be zeros that it never sent.
    pub(crate) fn of(options: &ValueOptions) -> Self {
        if !options.iso8601_timestamps {
            return Self { separator: ' ', digits: None };
        }
        let own = TimePrecision::Microseconds;
        let digits = options.max_precision.map_or(own, |precision| precision.min(own)).digits();
        Self { separator: 'T', digits: Some(digits) }
    }

    /// A moment of no fraction, as an infinity is written.
    fn whole(self, date: &str, clock: &str, zone: &str) -> Stamp {
        let Self { separator, digits } = self;
        let zeros = "0".repeat(digits.unwrap_or(0));
        let point = if zeros.is_empty() { "" } else { "." };
        Stamp::Text(format!("{date}{separator}{clock}{point}{zeros}{zone}"))
    }
}

/// `2024-03-05`; infinities become the first and the last day that four digits can name.
pub(super) fn date(text: &str) -> Option<String> {
    match text {
        "infinity" => Some("9999-12-31".into()),
        "-infinity" => Some("0000-01-01".into()),
        _ => None,
    }
}

/// What a timestamp becomes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    Text(String),
    /// It lies outside what the form can say.
    Null,
    /// It is not a timestamp.
    Unknown,
}

/// `2024-03-05 06:07:08.5` becomes `2024-03-05T06:07:08.500000`.
pub(super) fn timestamp(text: &str, form: TimeForm) -> Stamp {
    match text {
        "infinity" => return form.whole("9999-12-31", "23:59:59", ""),
        "-infinity" => return form.whole("0000-01-01", "00:00:00", ""),
        _ if text.ends_with(" BC") => return Stamp::Null,
        _ => {}
    }
    let Some((date, clock)) = text.split_once(' ') else { return Stamp::Unknown };
    match (calendar(date), joined(date, clock, "", form)) {
        (Some(_), Some(text)) => Stamp::Text(text),
        _ => Stamp::Unknown,
    }
}

/// `2024-03-05 06:07:08.5+02` becomes `2024-03-05T04:07:08.500000Z`.
pub(super) fn timestamptz(text: &str, form: TimeForm) -> Stamp {
    match text {
        "infinity" => return form.whole("9999-12-31", "23:59:59", "Z"),
        "-infinity" => return form.whole("0000-01-01", "00:00:00", "Z"),
        _ if text.ends_with(" BC") => return Stamp::Null,
        _ => {}
    }
    let Some((date, rest)) = text.split_once(' ') else { return Stamp::Unknown };
    let Some(sign) = rest.find(['+', '-']) else { return Stamp::Unknown };
    let (clock, zone) = rest.split_at(sign);
    let (Some(day), Some(offset)) = (calendar(date), offset_seconds(zone)) else { return Stamp::Unknown };
    if offset == 0 {
        // With the pinned time zone this is the only case.
        let Some(text) = joined(date, clock, "Z", form) else { return Stamp::Unknown };
        return if date.len() == 10 { Stamp::Text(text) } else { Stamp::Null };
    }
    let Some(padded) = clock_text(clock, form) else { return Stamp::Unknown };
    let Some(seconds) = clock_seconds(clock) else { return Stamp::Unknown };
    let fraction = padded.get(8..).unwrap_or_default();
    let total = day * 86_400 + seconds - offset;
    let (year, month, day) = civil(total.div_euclid(86_400));
    if !(0..=9999).contains(&year) {
        return Stamp::Null;
    }
    let rest = total.rem_euclid(86_400);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let separator = form.separator;
    Stamp::Text(format!("{year:04}-{month:02}-{day:02}{separator}{hour:02}:{minute:02}:{second:02}{fraction}Z"))
}

/// Date, clock and zone as one text, in an allocation of its very size: a value is made of it without another one.
fn joined(date: &str, clock: &str, zone: &str, form: TimeForm) -> Option<String> {
    let clock_size = match form.digits {
        None => clock.len(),
        Some(0) => 8,
        Some(digits) => 9 + digits,
    };
    let mut text = String::with_capacity(date.len() + 1 + clock_size + zone.len());
    text.push_str(date);
    text.push(form.separator);
    write_clock(&mut text, clock, form)?;
    text.push_str(zone);
    Some(text)
}

/// `06:07:08.5` becomes `06:07:08.500000`.
pub(super) fn clock_text(text: &str, form: TimeForm) -> Option<String> {
    let mut out = String::with_capacity(16);
    write_clock(&mut out, text, form)?;
    Some(out)
}

/// Appends what [`clock_text`] makes of a text.
fn write_clock(out: &mut String, text: &str, form: TimeForm) -> Option<()> {
    clock_seconds(text)?;
    let Some(digits) = form.digits else {
        out.push_str(text);
        return Some(());
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    out.push_str(whole);
    if digits > 0 {
        let kept = fraction.get(..fraction.len().min(digits))?;
        out.push('.');
        out.push_str(kept);
        (kept.len()..digits).for_each(|_| out.push('0'));
    }
    Some(())
}

/// Whole seconds of `hh:mm:ss[.f]`.
fn clock_seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let bytes = whole.as_bytes();
    if bytes.len() != 8 || bytes[2] != b':' || bytes[5] != b':' {
        return None;
    }
    Some(number(&whole[..2])? * 3600 + number(&whole[3..5])? * 60 + number(&whole[6..])?)
}

/// Seconds east of Greenwich of `+02`, `-03:30` or `+00:19:32`; parts of a minute are left out, since ISO 8601 has none.
fn offset_seconds(text: &str) -> Option<i64> {
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let mut parts = digits.split(':');
    let hours = number(parts.next()?)?;
    let minutes = parts.next().map_or(Some(0), number)?;
    parts.next().map_or(Some(0), number)?;
    let seconds = hours * 3600 + if digits.matches(':').count() > 1 { 0 } else { minutes * 60 };
    parts.next().is_none().then_some(sign * seconds)
}

/// Days since 1970-01-01 of `y…y-mm-dd`.
fn calendar(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, '-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if year.len() < 4 || year.len() > 6 || month.len() != 2 || day.len() != 2 {
        return None;
    }
    let (year, month, day) = (number(year)?, number(month)?, number(day)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Counted in years that begin in March, so that the leap day comes last.
    let shifted = if month > 2 { year } else { year - 1 };
    let era = shifted.div_euclid(400);
    let of_era = shifted.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

/// The inverse of [`calendar`].
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

fn number(text: &str) -> Option<i64> {
    let plain = !text.is_empty() && text.len() <= 6 && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn days_and_dates_are_inverse(days in -719_528i64..2_932_896) {
            let (year, month, day) = civil(days);
            prop_assert_eq!(calendar(&format!("{year:04}-{month:02}-{day:02}")), Some(days));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*", near in "[0-9 :+.TZ-]{0,40}") {
            for text in [text, near] {
                let forms = [TimeForm { separator: ' ', digits: None }, TimeForm { separator: 'T', digits: Some(3) }];
                for form in forms {
                    let _ = (timestamp(&text, form), timestamptz(&text, form), clock_text(&text, form), date(&text));
                }
            }
        }
    }
}
