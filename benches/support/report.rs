//! The figures of all rounds: as JSON, as a table, as a picture.
//!
//! Owns what was measured, in the order of the cases. The ratio of two servers is the median of the ratios of their rounds,
//! because the rounds of both ran side by side.

use crate::cases::{CASES, Case, Figure};
use crate::servers::Kind;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

/// Figures by case, unit and server, one for each round; `None` where the server failed.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Report(BTreeMap<String, BTreeMap<String, BTreeMap<String, Values>>>);

type Values = Vec<Option<f64>>;

impl Report {
    /// What a file has from before, if there is one.
    pub(crate) fn read(file: Option<&Path>) -> Self {
        let text = file.and_then(|file| std::fs::read_to_string(file).ok());
        text.map_or_else(Self::default, |text| serde_json::from_str(&text).expect("the file is one of these reports"))
    }

    pub(crate) fn write(&self, file: &Path) -> io::Result<()> {
        let text = serde_json::to_string_pretty(&self.0).map_err(io::Error::other)?;
        std::fs::write(file, text + "\n")
    }

    /// Forgets what was measured of a case in another run: only what ran side by side may be compared.
    pub(crate) fn begin(&mut self, case: &Case) {
        self.0.remove(case.name);
    }

    /// Takes one line of the generator in, or that there is none.
    pub(crate) fn note(&mut self, case: &Case, kind: Kind, line: Option<&Value>) {
        for figure in case.figures {
            let value = line.and_then(|line| line.pointer(figure.at)).and_then(Value::as_f64);
            if let (None, Some(line)) = (value, line) {
                eprintln!("{}, {}: the generator told no {}: {line}", case.name, kind.name(), figure.at);
            }
            let of_case = self.0.entry(case.name.into()).or_default().entry(figure.unit.into()).or_default();
            of_case.entry(kind.name().into()).or_default().push(value);
        }
    }

    /// As Markdown.
    pub(crate) fn table(&self) -> String {
        let mut text = "| case | | ".to_owned();
        Kind::ALL.iter().for_each(|kind| text += &format!("{} | ", kind.name()));
        text += "to coturn | to bare |\n| --- | --- |";
        text += &" --- |".repeat(Kind::ALL.len() + 2);
        text.push('\n');
        for (case, figure) in rows() {
            let Some(of_case) = self.0.get(case.name).and_then(|figures| figures.get(figure.unit)) else { continue };
            let _ = write!(text, "| {} | {} |", case.name, figure.unit);
            for kind in Kind::ALL {
                let _ = write!(text, " {} |", rounded(of_case.get(kind.name()).and_then(|values| median(values))));
            }
            for other in [Kind::Coturn, Kind::Bare] {
                let ratio = ratio(of_case.get(Kind::Ours.name()), of_case.get(other.name()));
                let _ = write!(text, " {} |", ratio.map_or_else(|| "–".into(), |ratio| format!("{ratio:.2}")));
            }
            text.push('\n');
        }
        text
    }

    /// What a relayed packet costs, as bars in SVG.
    pub(crate) fn picture(&self) -> String {
        const LEFT: usize = 290;
        const WIDTH: f64 = 420.0;
        const BAR: usize = 13;
        const COLOURS: [&str; Kind::ALL.len()] = ["#1f6feb", "#d29922", "#8b949e", "#c9d1d9"];
        let drawn = || rows().filter(|(case, figure)| case.is_relayed && figure.is_cost);
        let value = |case: &Case, figure: &Figure, kind: Kind| {
            median(self.0.get(case.name)?.get(figure.unit)?.get(kind.name())?)
        };
        let values = drawn().flat_map(|(case, figure)| Kind::ALL.map(|kind| value(case, figure, kind)));
        let most = values.flatten().fold(1.0, f64::max);
        let mut body = String::new();
        let mut top = 24;
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            let (x, colour, name) = (LEFT + 110 * at, COLOURS[at], kind.name());
            let _ = writeln!(body, r#"<rect x="{x}" y="6" width="10" height="10" fill="{colour}"/>"#);
            let _ = writeln!(body, r#"<text x="{}" y="15">{name}</text>"#, x + 14);
        }
        for (case, figure) in drawn() {
            let bars: Vec<_> = Kind::ALL.into_iter().zip(COLOURS).collect();
            let bars = bars.into_iter().filter_map(|(kind, colour)| Some((value(case, figure, kind)?, colour)));
            let bars: Vec<(f64, &str)> = bars.collect();
            if bars.is_empty() {
                continue;
            }
            let middle = top + bars.len() * BAR / 2 + 4;
            let _ = writeln!(body, r#"<text x="{}" y="{middle}" text-anchor="end">{}</text>"#, LEFT - 8, case.name);
            for (value, colour) in bars {
                let length = value / most * WIDTH;
                let _ = writeln!(
                    body,
                    r#"<rect x="{LEFT}" y="{top}" width="{length:.1}" height="{}" fill="{colour}"/>"#,
                    BAR - 2
                );
                let x = LEFT as f64 + length + 4.0;
                let _ = writeln!(body, r#"<text x="{x:.1}" y="{}">{}</text>"#, top + BAR - 3, rounded(Some(value)));
                top += BAR;
            }
            top += 10;
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"780\" height=\"{top}\" font-family=\"sans-serif\" \
             font-size=\"11\">\n<title>CPU µs per relayed packet</title>\n\
             <rect width=\"780\" height=\"{top}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
        )
    }
}

/// Every figure of every case, in order.
fn rows() -> impl Iterator<Item = (&'static Case, &'static Figure)> {
    CASES.iter().flat_map(|case| case.figures.iter().map(move |figure| (case, figure)))
}

fn ratio(ours: Option<&Values>, theirs: Option<&Values>) -> Option<f64> {
    let rounds = ours?.iter().zip(theirs?);
    let ratios: Values = rounds.map(|(ours, theirs)| Some((*ours)? / (*theirs)?)).collect();
    median(&ratios)
}

fn median(values: &[Option<f64>]) -> Option<f64> {
    let mut values: Vec<f64> = values.iter().copied().flatten().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// As many digits as mean something.
fn rounded(value: Option<f64>) -> String {
    match value {
        None => "–".into(),
        Some(value) if value.abs() < 100.0 => format!("{value:.2}"),
        Some(value) => {
            let digits = format!("{value:.0}");
            let mut text = String::new();
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at) % 3 == 0 {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
    }
}
