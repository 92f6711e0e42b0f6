//! The figure of `docs/performance.md`: panels over sizes in powers of ten, with its own
//! background, so that it is readable on any page.

use std::fmt::Write;

use kit::svg::{line, text};

/// The values of one series.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// Size and value, ordered by size.
    pub(crate) points: Vec<(f64, f64)>,
}

/// One panel of the figure.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    pub(crate) title: String,
    /// The unit of the sizes.
    pub(crate) x: &'static str,
    pub(crate) series: Vec<Series>,
}

const WIDTH: f64 = 800.0;
const LEFT: f64 = 86.0;
const RIGHT: f64 = 620.0;
const FIRST: f64 = 92.0;
const HEIGHT: f64 = 150.0;
const STEP: f64 = 224.0;

/// The series are told apart by colour and by marks.
const COLORS: [&str; 4] = ["#b8400e", "#00664f", "#1f4e9e", "#7a1f7a"];

/// The ratio of the largest to the smallest value from which on a scale is logarithmic.
const WIDE: f64 = 50.0;

/// The scale of values.
struct Scale {
    /// The position of a value, from 0 at the bottom to 1 at the top.
    low: f64,
    high: f64,
    by_powers: bool,
    ticks: Vec<f64>,
}

/// The figure, as SVG 1.1.
pub(crate) fn svg(title: &str, subtitle: &str, panels: &[Panel]) -> String {
    let height = FIRST + STEP * panels.len() as f64 - 16.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"14\" fill=\"#1f2933\">\n\
         <title>{title}</title>\n\
         <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"6\" fill=\"#ffffff\" stroke=\"#cbd2d9\"/>\n",
        WIDTH - 1.0,
        height - 1.0
    );
    let style = "font-size=\"19\" font-weight=\"bold\"";
    text(&mut svg, (24.0, 34.0), style, title);
    text(&mut svg, (24.0, 56.0), "fill=\"#52606d\"", subtitle);
    for (nth, panel) in panels.iter().enumerate() {
        draw(&mut svg, panel, FIRST + STEP * nth as f64);
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(svg: &mut String, panel: &Panel, top: f64) {
    let bottom = top + 14.0 + HEIGHT;
    let all = || panel.series.iter().flat_map(|series| &series.points);
    let largest = all().map(|(size, _)| *size).fold(1.0, f64::max);
    let scale = Scale::of(all().map(|(_, value)| *value));
    let x =
        |size: f64| LEFT + 14.0 + size.log10() / largest.log10().max(1.0) * (RIGHT - LEFT - 28.0);
    let y = |value: f64| bottom - scale.place(value) * HEIGHT;
    text(svg, (24.0, top), "font-weight=\"bold\"", &panel.title);
    for tick in &scale.ticks {
        let y = y(*tick);
        line(svg, (LEFT, y), (RIGHT, y), "#e4e7eb");
        let label = format!("{tick}");
        text(svg, (LEFT - 10.0, y + 5.0), "text-anchor=\"end\"", &label);
    }
    line(svg, (LEFT, bottom), (RIGHT, bottom), "#7b8794");
    for power in 0..=largest.log10().round() as i32 {
        let size = 10_f64.powi(power);
        line(svg, (x(size), bottom), (x(size), bottom + 5.0), "#7b8794");
        let middle = "text-anchor=\"middle\"";
        text(svg, (x(size), bottom + 21.0), middle, &format!("{size}"));
    }
    text(
        svg,
        (RIGHT + 34.0, bottom + 21.0),
        "fill=\"#52606d\"",
        panel.x,
    );
    let mut names = f64::NEG_INFINITY;
    let mut in_order: Vec<(usize, &Series)> = panel.series.iter().enumerate().collect();
    let last = |series: &Series| series.points.last().map_or(0.0, |(_, value)| *value);
    in_order.sort_by(|(_, one), (_, other)| last(other).total_cmp(&last(one)));
    for (nth, series) in in_order {
        let color = COLORS[nth % COLORS.len()];
        let points = series.points.iter();
        let places: Vec<(f64, f64)> = points.map(|(size, value)| (x(*size), y(*value))).collect();
        let path = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}"));
        let path: Vec<String> = path.collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2.5\"/>",
            path.join(" ")
        );
        for place in &places {
            mark(svg, nth, *place, color);
        }
        if let Some((x, y)) = places.last().copied() {
            // keep the labels apart even if the lines end close together
            names = y.max(names + 17.0);
            let style = format!("fill=\"{color}\" font-weight=\"bold\"");
            text(svg, (x + 14.0, names + 5.0), &style, &series.name);
        }
    }
}

fn mark(svg: &mut String, nth: usize, (x, y): (f64, f64), color: &str) {
    let _ = match nth % 2 {
        0 => {
            let (x, y) = (x - 4.0, y - 4.0);
            writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"8\" height=\"8\" fill=\"#ffffff\" stroke=\"{color}\" stroke-width=\"2\"/>"
            )
        }
        _ => writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\" fill=\"{color}\"/>"
        ),
    };
}

impl Scale {
    /// A scale that fits `values`: from zero, or logarithmic if they are far apart.
    fn of(values: impl Iterator<Item = f64> + Clone) -> Scale {
        let most = values.clone().fold(0.0, f64::max).max(1e-9);
        let least = values.fold(f64::INFINITY, f64::min).clamp(1e-9, most);
        if most / least > WIDE {
            let (low, high) = (least.log10().floor() as i32, most.log10().ceil() as i32);
            return Scale {
                low: f64::from(low),
                high: f64::from(high),
                by_powers: true,
                ticks: (low..=high).map(|power| 10_f64.powi(power)).collect(),
            };
        }
        let power = 10_f64.powf((most / 4.0).log10().floor());
        let steps = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0].map(|step| step * power);
        let step = steps
            .into_iter()
            .find(|step| step * 4.0 >= most)
            .unwrap_or(10.0 * power);
        Scale {
            low: 0.0,
            high: 4.0 * step,
            by_powers: false,
            ticks: (0..=4).map(|nth| f64::from(nth) * step).collect(),
        }
    }

    fn place(&self, value: f64) -> f64 {
        let value = if self.by_powers { value.log10() } else { value };
        (value - self.low) / (self.high - self.low)
    }
}
