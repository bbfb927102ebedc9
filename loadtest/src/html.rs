//! A run as a page for people, with its pictures in it.

use plotters::prelude::*;

use crate::{measure::Moment, report::Report};

type Failure = Box<dyn std::error::Error>;

const SIZE: (u32, u32) = (900, 300);
const FONT: &str = "sans-serif";
/// Told apart also by those who see fewer colours: Okabe and Ito's.
const BLUE: RGBColor = RGBColor(0, 114, 178);
const ORANGE: RGBColor = RGBColor(230, 159, 0);
const GREEN: RGBColor = RGBColor(0, 158, 115);

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #ddd}\
td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}";

/// A line of a picture.
struct Line<'a> {
    name: &'a str,
    colour: RGBColor,
    points: Vec<(f64, f64)>,
}

/// # Errors
/// When a picture cannot be drawn.
pub fn page(report: &Report) -> Result<String, Failure> {
    let measured = &report.measured;
    let line = |name, colour, value: fn(&Moment) -> Option<f64>| {
        let point = |moment: &Moment| Some((moment.second as f64, value(moment)?));
        Line { name, colour, points: measured.timeline.iter().filter_map(point).collect() }
    };
    let rate = picture(
        "Requests a second",
        "seconds",
        &[
            line("answered", BLUE, |moment| {
                Some(a_second(moment.requests - moment.refused - moment.errors, moment))
            }),
            line("refused", ORANGE, |moment| Some(a_second(moment.refused, moment))),
            line("errors", GREEN, |moment| Some(a_second(moment.errors, moment))),
        ],
    )?;
    let times = picture(
        "Latency in milliseconds",
        "seconds",
        &[line("p99", ORANGE, |moment| moment.p99_ms), line("p50", BLUE, |moment| moment.p50_ms)],
    )?;
    // As many nines as it has: 1 is 90 %, 2 is 99 %.
    let nines = |(share, latency): &(f64, f64)| (-(1.0 - share.min(0.999_99)).log10(), *latency);
    let points = measured.distribution.iter().map(nines).collect();
    let distribution = picture(
        "Latency in milliseconds of the slowest",
        "nines: 1 is the 90th percentile, 2 the 99th, 3 the 99.9th",
        &[Line { name: "latency", colour: BLUE, points }],
    )?;
    let title = report.settings.in_words();
    Ok(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\
         <h1>Load test</h1><p>{title}</p>{}{rate}{times}{distribution}</html>\n",
        table(report)
    ))
}

fn a_second(count: u64, moment: &Moment) -> f64 {
    count as f64 / moment.seconds as f64
}

fn table(report: &Report) -> String {
    let row = |tag: &str, cells: Vec<String>| {
        let cells: Vec<String> = cells.iter().map(|cell| format!("<{tag}>{cell}</{tag}>")).collect();
        format!("<tr>{}</tr>", cells.concat())
    };
    let heading = [
        "",
        "answered/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "refused",
        "errors",
        "empty",
        "degraded",
    ];
    let mut rows = vec![row("th", heading.map(str::to_owned).to_vec())];
    for (name, seen) in report.rows() {
        let mut cells = vec![name.to_owned(), format!("{:.1}", seen.throughput)];
        let times = seen.latency_ms.as_ref();
        let times = times.map(|times| [times.p50, times.p95, times.p99, times.p999, times.max]);
        let time = |place: usize| times.map(|times| format!("{:.1}", times[place])).unwrap_or_default();
        cells.extend((0..5).map(time));
        cells.extend([seen.refused, seen.errors, seen.empty, seen.degraded].iter().map(u64::to_string));
        rows.push(row("td", cells));
    }
    format!("<table>{}</table>", rows.concat())
}

fn picture(title: &str, below: &str, lines: &[Line<'_>]) -> Result<String, Failure> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let most = |pick: fn(&(f64, f64)) -> f64| points().map(pick).fold(1e-3, f64::max);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, (FONT, 18))
            .margin(8)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..most(|point| point.0), 0.0..most(|point| point.1) * 1.05)?;
        chart.configure_mesh().x_desc(below).light_line_style(TRANSPARENT).draw()?;
        for line in lines {
            let colour = line.colour;
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)))?
                .label(line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        }
        chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(TRANSPARENT).draw()?;
        root.present()?;
    }
    Ok(svg)
}
