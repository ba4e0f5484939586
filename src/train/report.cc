// report.html: one file that any browser shows, without scripts or other files.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/html.h"
#include "train/metrics.h"

namespace lorry::train {
namespace {

constexpr double kWidth = 860, kHeight = 320, kLeft = 56, kRight = 12, kTop = 12, kBottom = 34;
constexpr int64_t kMaxPoints = 1000;  // the file stays small however long the run

constexpr std::string_view kHead = R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{0}</title><style>
body{{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em;color:#222}}
table{{border-collapse:collapse}}td{{padding:.2em 1.2em .2em 0;vertical-align:top}}
td:first-child{{color:#666}}svg{{width:100%;height:auto}}text{{font-size:12px;fill:#666}}
</style></head><body><h1>{0}</h1>
)";

std::string svg(const std::vector<LossCurve::Point>& points) {
  if (points.empty()) return "<p>No steps.</p>\n";
  double top = 0;
  for (const LossCurve::Point& p : points) top = std::max(top, p.loss);
  if (top <= 0) top = 1;
  const double last = std::max(1.0, points.back().step);
  const auto x = [&](double step) { return kLeft + step / last * (kWidth - kLeft - kRight); };
  const auto y = [&](double loss) { return kTop + (1 - loss / top) * (kHeight - kTop - kBottom); };

  std::string out = fmt::format(R"(<svg viewBox="0 0 {} {}" role="img" aria-label="loss curve">)",
                                kWidth, kHeight);
  for (int i = 0; i <= 4; ++i) {
    const double loss = top * i / 4;
    out += fmt::format(R"(<line x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}" stroke="#ddd"/>)"
                       R"(<text x="{3}" y="{4:.1f}" text-anchor="end">{5:.3g}</text>)",
                       kLeft, kWidth - kRight, y(loss), kLeft - 6, y(loss) + 4, loss);
  }
  for (int i = 0; i <= 4; ++i) {
    out += fmt::format(R"(<text x="{:.1f}" y="{}" text-anchor="middle">{:.0f}</text>)",
                       x(last * i / 4), kHeight - 14, last * i / 4);
  }
  out += R"(<polyline fill="none" stroke="#0a66c2" stroke-width="1.5" points=")";
  for (const LossCurve::Point& p : points)
    out += fmt::format("{:.1f},{:.1f} ", x(p.step), y(p.loss));
  return out + "\"/></svg>\n<p>Loss (mean over the target tokens of a step) against steps.</p>\n";
}

}  // namespace

LossCurve::LossCurve(int64_t steps) : stride_(steps / kMaxPoints + 1) {}

void LossCurve::add(const StepMetrics& metrics) {
  if (std::isfinite(metrics.loss)) {
    sum_ += metrics.loss;
    ++finite_;
  }
  last_step_ = static_cast<double>(metrics.step);
  if (++in_stretch_ < stride_) return;
  if (finite_ > 0) points_.push_back({last_step_, sum_ / static_cast<double>(finite_)});
  in_stretch_ = finite_ = 0;
  sum_ = 0;
}

std::vector<LossCurve::Point> LossCurve::points() const {
  std::vector<Point> points = points_;
  if (finite_ > 0) points.push_back({last_step_, sum_ / static_cast<double>(finite_)});
  return points;
}

std::string report_html(const std::string& title, const LossCurve& curve, const Json& facts) {
  std::string out = fmt::format(fmt::runtime(kHead), escape_html(title)) + svg(curve.points());
  out += "<table>\n";
  for (const auto& [key, value] : facts.items()) {
    const std::string text = value.is_string() ? value.get<std::string>() : dump_json(value);
    out += fmt::format("<tr><td>{}</td><td>{}</td></tr>\n", escape_html(key), escape_html(text));
  }
  return out + "</table></body></html>\n";
}

}  // namespace lorry::train
