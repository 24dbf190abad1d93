// The cells and their gradients in double precision, element by element: what the kernels are compared with. The
// equations bear the numbers of kernels/reference.py.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "recurrence.h"

namespace gatewise {

using Doubles = std::vector<double>;

constexpr bool is_gru(Cell cell) { return cell == Cell::gru_after || cell == Cell::gru_before; }
constexpr bool is_mingru(Cell cell) { return cell == Cell::mingru_linear || cell == Cell::mingru_positive; }
constexpr bool is_lstm(Cell cell) { return cell == Cell::lstm || cell == Cell::lstm_projected; }

constexpr Index gate_count(Cell cell) { return is_lstm(cell) ? 4 : is_gru(cell) ? 3 : is_mingru(cell) ? 2 : 1; }

// Whether there are weight_hh and bias_hh.
constexpr bool has_recurrent_weights(Cell cell) { return !is_mingru(cell); }

// Whether there are kernels with what regularises.
constexpr bool has_extended(Cell cell) { return has_recurrent_weights(cell) && cell != Cell::lstm_projected; }

// Step `step` of row b of the sweep among those of a sequence, which are T * B, step by step, or packed.
inline Index position(const Shape& s, Index step, Index b) {
    if (!s.rows) return step * s.B + b;
    const Index time = s.rows->reverse ? s.rows->lengths[b] - 1 - step : step;
    return s.rows->packed ? s.rows->offset[time] + b : time * s.B + s.rows->order[b];
}

// Whether row b of the sweep begins anew with that step. The resets are contiguous.
inline bool begins(const Shape& s, Index step, Index b) {
    if (step == 0 || !s.rows || !s.rows->resets.data) return step == 0;
    return s.rows->resets.data[position(s, s.rows->reverse ? step - 1 : step, b)];
}

// R: units of the state, H but for a projection.
struct Inputs {
    Doubles x;          // (T, B, I), or packed
    Doubles h0, c0;     // (B, R), (B, H)
    // (GH, I): the gates r, z, n of a GRU, i, f, g, o of an LSTM and z, n of a minGRU, one below the other
    Doubles weight_ih;
    Doubles weight_hh;  // (GH, R); zeros where there are none
    Doubles bias_ih;    // (GH,)
    Doubles bias_hh;    // (GH,)
    Doubles dy;         // (T, B, R), or packed: gradient of y
    Doubles dhn, dcn;   // (B, R), (B, H): gradient of the last states
    Doubles weight_hr = {};                    // (R, H), or empty: of a projection
    Doubles dropout = {};                      // (B, H), or empty
    Doubles zoneout_h = {}, zoneout_c = {};    // (T, B, H), or packed, or empty
    Doubles norm_ih = {}, norm_hh = {};        // (GH,), or empty
    Doubles norm_c = {}, norm_c_bias = {};     // (H,), or empty
};

struct Results {
    Doubles y;  // (T, B, R), or packed; NaN where a row has ended
    Doubles hn, cn;
    // As the inputs; dx is NaN where a row has ended.
    Doubles dx, dh0, dc0, dweight_ih, dweight_hh, dweight_hr, dbias_ih, dbias_hh;
    Doubles dnorm_ih, dnorm_hh, dnorm_c, dnorm_c_bias;
    double closest = 1;  // that a sum came to the kink of a relu, or of a positive candidate
};

class Definition {
  public:
    Definition(Cell cell, const Shape& shape, const Inputs& inputs)
        : cell_(cell), s_(shape), G_(gate_count(cell)), in_(inputs) {
        constexpr double unwritten = std::numeric_limits<double>::quiet_NaN();
        out_.y.assign(in_.dy.size(), unwritten);
        out_.dx.assign(in_.x.size(), unwritten);
        out_.hn = out_.dh0 = Doubles(in_.h0.size());
        out_.cn = out_.dc0 = Doubles(in_.c0.size());
        out_.dweight_ih.resize(in_.weight_ih.size());
        out_.dweight_hh.resize(in_.weight_hh.size());
        out_.dweight_hr.resize(in_.weight_hr.size());
        out_.dbias_ih.resize(in_.bias_ih.size());
        out_.dbias_hh.resize(in_.bias_hh.size());
        out_.dnorm_ih = out_.dnorm_hh = Doubles(G_ * s_.H);
        out_.dnorm_c = out_.dnorm_c_bias = Doubles(s_.H);
    }

    Results results() {
        for (Index b = 0; b < s_.B; ++b) sweep(b, s_.rows ? s_.rows->lengths[b] : s_.T);
        return out_;
    }

  private:
    // Normalised numbers, and of each what its deviation from the mean was multiplied by.
    struct Normalised {
        Doubles v, scale;
    };

    struct Step {
        Doubles h, c;   // the states before
        Doubles gates;  // (G, H)
        Doubles m;      // gru_after: W_hn h + b_hn; gru_before: r * h; lstm: what the tanh is taken of
        Doubles shown;  // lstm: o * tanh(m)
        Doubles mask, seen, k_h, k_c;  // of dropout, mask * h, of zoneout
        Normalised of_x, of_h, of_c;
    };

    static double sigmoid(double a) { return 1 / (1 + std::exp(-a)); }

    // The rows [begin, end) of some sums: normalised block by block, if there is a gain.
    void normalise(Doubles& sums, Index begin, Index end, const Doubles& gain, Normalised& to) const {
        if (gain.empty()) return;
        to.v.resize(sums.size());
        to.scale.resize(sums.size());
        for (Index first = begin, last; first < end; first = last) {
            last = block_end(first, static_cast<Index>(sums.size()));
            double mean = 0, variance = 0;
            for (Index k = first; k < last; ++k) mean += sums[k] / (last - first);
            for (Index k = first; k < last; ++k) variance += (sums[k] - mean) * (sums[k] - mean) / (last - first);
            for (Index k = first; k < last; ++k) {
                to.scale[k] = 1 / std::sqrt(variance + 1e-5);
                to.v[k] = (sums[k] - mean) * to.scale[k];
                sums[k] = to.v[k] * gain[k];
            }
        }
    }

    // Gradients of the sums from those of what normalise() made of them.
    void normalise_back(Doubles& d, Index begin, Index end, const Doubles& gain, const Normalised& of,
                        Doubles& dgain) const {
        if (gain.empty()) return;
        for (Index first = begin, last; first < end; first = last) {
            last = block_end(first, static_cast<Index>(d.size()));
            double mean = 0, weighted = 0;
            for (Index k = first; k < last; ++k) {
                dgain[k] += d[k] * of.v[k];
                mean += d[k] * gain[k] / (last - first);
                weighted += d[k] * gain[k] * of.v[k] / (last - first);
            }
            for (Index k = first; k < last; ++k) d[k] = of.scale[k] * (d[k] * gain[k] - mean - of.v[k] * weighted);
        }
    }
    // Where the block of row k ends, of so many rows: r and z of a GRU are one block, n another.
    Index block_end(Index k, Index rows) const { return rows == 3 * s_.H && k < 2 * s_.H && G_ == 3 ? 2 * s_.H : rows; }

    // Row b of the sweep, forward and back.
    void sweep(Index b, Index length) {
        const Index H = s_.H, R = s_.state(), place = s_.rows ? s_.rows->order[b] : b;
        const auto row = [&](const Doubles& v, Index n) { return Doubles(&v[place * n], &v[place * n] + n); };
        const Doubles h0 = row(in_.h0, R), c0 = row(in_.c0, H);
        Doubles h = h0, c = c0, dh = row(in_.dhn, R), dc = row(in_.dcn, H);
        std::vector<Step> steps(length);
        for (Index t = 0; t < length; ++t) {
            if (begins(s_, t, b)) h = h0, c = c0;
            find_masks(t, b, h, steps[t]);
            forward(&in_.x[position(s_, t, b) * s_.I], h, c, steps[t]);
            std::copy(h.begin(), h.end(), &out_.y[position(s_, t, b) * R]);
        }
        std::copy(h.begin(), h.end(), &out_.hn[place * R]);
        std::copy(c.begin(), c.end(), &out_.cn[place * H]);
        const auto give_to_first = [&] {
            for (Index j = 0; j < R; ++j) out_.dh0[place * R + j] += dh[j];
            for (Index j = 0; j < H; ++j) out_.dc0[place * H + j] += dc[j];
            dh = Doubles(R), dc = Doubles(H);
        };
        for (Index t = length - 1; t >= 0; --t) {
            const Index i = position(s_, t, b);
            for (Index j = 0; j < R; ++j) dh[j] += in_.dy[i * R + j];
            std::fill_n(&out_.dx[i * s_.I], s_.I, 0.0);
            backward(&in_.x[i * s_.I], steps[t], dh, dc, &out_.dx[i * s_.I]);
            if (begins(s_, t, b)) give_to_first();
        }
        if (length == 0) give_to_first();
    }

    void find_masks(Index t, Index b, const Doubles& h, Step& s) const {
        const Index H = s_.H, i = position(s_, t, b), place = s_.rows ? s_.rows->order[b] : b;
        const auto k = [&](const Doubles& all) {
            return all.empty() ? Doubles(H) : Doubles(all.begin() + i * H, all.begin() + (i + 1) * H);
        };
        s.k_h = k(in_.zoneout_h), s.k_c = k(in_.zoneout_c);
        s.mask = in_.dropout.empty() ? Doubles(H, 1.0) : Doubles(&in_.dropout[place * H], &in_.dropout[place * H] + H);
        s.seen = h;
        for (Index j = 0; j < s_.state(); ++j) s.seen[j] *= s.mask[j];
    }

    // Replaces the states by those after the step.
    void forward(const double* x, Doubles& h, Doubles& c, Step& s) {
        const Index H = s_.H, rows = G_ * H;
        s.h = h, s.c = c, s.m = s.shown = Doubles(H), s.gates = Doubles(rows);
        for (Index k = 0; k < rows; ++k) s.gates[k] = product(in_.weight_ih, k, x, s_.I);
        normalise(s.gates, 0, rows, in_.norm_ih, s.of_x);
        for (Index k = 0; k < rows; ++k) s.gates[k] += in_.bias_ih[k];
        Doubles past(rows);
        const auto multiply = [&](Index begin, Index end, const Doubles& v) {
            for (Index k = begin; k < end; ++k) past[k] = product(in_.weight_hh, k, v.data(), s_.state());
            normalise(past, begin, end, in_.norm_hh, s.of_h);
            for (Index k = begin; k < end; ++k) past[k] += in_.bias_hh[k];
        };
        const auto gate = [&](Index g) { return s.gates.data() + g * H; };
        const auto keep = [&](const Doubles& k, Index j, double old, double fresh) {
            return k[j] * old + (1 - k[j]) * fresh;
        };
        if (is_gru(cell_)) {
            double *const r = gate(0), *const z = gate(1), *const n = gate(2);
            const bool after = cell_ == Cell::gru_after;
            multiply(0, 2 * H, s.seen);
            for (Index j = 0; j < H; ++j) {
                r[j] = sigmoid(r[j] + past[j]);      // (1)
                z[j] = sigmoid(z[j] + past[H + j]);  // (2)
                s.m[j] = r[j] * s.seen[j];
            }
            multiply(2 * H, rows, after ? s.seen : s.m);
            for (Index j = 0; j < H; ++j) {
                if (after) s.m[j] = past[2 * H + j];
                n[j] = std::tanh(n[j] + (after ? r[j] * s.m[j] : past[2 * H + j]));  // (3)
                h[j] = keep(s.k_h, j, s.h[j], (1 - z[j]) * n[j] + z[j] * s.h[j]);    // (4)
            }
        } else if (is_lstm(cell_)) {
            double *const i = gate(0), *const f = gate(1), *const g = gate(2), *const o = gate(3);
            multiply(0, rows, s.seen);
            for (Index j = 0; j < H; ++j) {
                i[j] = sigmoid(i[j] + past[j]);            // (1)
                f[j] = sigmoid(f[j] + past[H + j]);        // (2)
                g[j] = std::tanh(g[j] + past[2 * H + j]);  // (3)
                o[j] = sigmoid(o[j] + past[3 * H + j]);    // (4)
                s.m[j] = f[j] * s.c[j] + i[j] * g[j];      // (5)
                c[j] = keep(s.k_c, j, s.c[j], s.m[j]);
            }
            normalise(s.m, 0, H, in_.norm_c, s.of_c);
            for (Index j = 0; j < H; ++j) {
                if (!in_.norm_c_bias.empty()) s.m[j] += in_.norm_c_bias[j];
                s.shown[j] = o[j] * std::tanh(s.m[j]);     // (6)
            }
            const bool projects = cell_ == Cell::lstm_projected;
            for (Index j = 0; j < s_.state(); ++j) {
                const double fresh = projects ? product(in_.weight_hr, j, s.shown.data(), H) : s.shown[j];
                h[j] = keep(s.k_h, j, s.h[j], fresh);      // (6)
            }
        } else if (is_mingru(cell_)) {
            double *const z = gate(0), *const n = gate(1);
            for (Index j = 0; j < H; ++j) {
                z[j] = sigmoid(z[j]);                                                   // (1)
                if (cell_ == Cell::mingru_positive) {
                    out_.closest = std::min(out_.closest, std::abs(n[j]));
                    n[j] = n[j] >= 0 ? n[j] + 0.5 : sigmoid(n[j]);                      // (2)
                }
                h[j] = (1 - z[j]) * n[j] + z[j] * s.h[j];                               // (3)
            }
        } else {
            multiply(0, rows, s.seen);
            for (Index j = 0; j < H; ++j) {
                const double sum = s.gates[j] + past[j];
                s.gates[j] = cell_ == Cell::rnn_tanh ? std::tanh(sum) : std::max(sum, 0.0);  // (1)
                h[j] = keep(s.k_h, j, s.h[j], s.gates[j]);
                if (cell_ == Cell::rnn_relu) out_.closest = std::min(out_.closest, std::abs(sum));
            }
        }
    }

    // dh, dc: the gradients of the states after the step, replaced by those of the states before.
    void backward(const double* x, const Step& s, Doubles& dh, Doubles& dc, double* dx) {
        const Index H = s_.H, R = s_.state(), rows = G_ * H;
        Doubles da(rows), dp;        // before their activations; of W_hh (...) + b_hh
        Doubles dm(H), dseen(R);
        Index products_of_h = rows;  // rows of W_hh that are multiplied by h; the others are by m
        const auto gate = [&](Index g) { return s.gates.data() + g * H; };
        // The gradients of W_hh v + b of some rows become those of W_hh v.
        const auto end_products = [&](Index begin, Index end) {
            for (Index k = begin; k < end; ++k) out_.dbias_hh[k] += dp[k];
            normalise_back(dp, begin, end, in_.norm_hh, s.of_h, out_.dnorm_hh);
        };
        Doubles kept = dh;
        for (Index j = 0; j < R; ++j) {
            kept[j] *= s.k_h[j];
            dh[j] *= 1 - s.k_h[j];
        }
        if (is_gru(cell_)) {
            const double *const r = gate(0), *const z = gate(1), *const n = gate(2);
            const bool after = cell_ == Cell::gru_after;
            for (Index j = 0; j < H; ++j) {
                da[2 * H + j] = dh[j] * (1 - z[j]) * (1 - n[j] * n[j]);      // (4), (3)
                da[H + j] = dh[j] * (s.h[j] - n[j]) * z[j] * (1 - z[j]);     // (4), (2)
                dh[j] *= z[j];                                               // (4)
            }
            dp = da;
            for (Index j = 0; after && j < H; ++j) dp[2 * H + j] *= r[j];    // (3)
            end_products(2 * H, rows);
            if (!after) {
                products_of_h = 2 * H;
                multiply_back(in_.weight_hh, dp, products_of_h, rows, H, dm.data());
            }
            for (Index j = 0; j < H; ++j) {
                da[j] = (after ? da[2 * H + j] * s.m[j] : dm[j] * s.seen[j]) * r[j] * (1 - r[j]);  // (3), (1)
                dp[j] = da[j];
                dseen[j] += dm[j] * r[j];                                                          // (3)
            }
            end_products(0, 2 * H);
        } else if (is_lstm(cell_)) {
            const double *const i = gate(0), *const f = gate(1), *const g = gate(2), *const o = gate(3);
            Doubles dv(H), dshown = dh;
            if (cell_ == Cell::lstm_projected) {
                dshown = Doubles(H);
                multiply_back(in_.weight_hr, dh, 0, R, H, dshown.data());  // (6)
                add_outer(out_.dweight_hr, dh, 0, R, s.shown.data(), H);   // (6)
            }
            dh = Doubles(R);
            for (Index j = 0; j < H; ++j) {
                const double tanh_v = std::tanh(s.m[j]);
                dv[j] = dshown[j] * o[j] * (1 - tanh_v * tanh_v);          // (6)
                da[3 * H + j] = dshown[j] * tanh_v * o[j] * (1 - o[j]);    // (6), (4)
                if (!in_.norm_c.empty()) out_.dnorm_c_bias[j] += dv[j];
            }
            normalise_back(dv, 0, H, in_.norm_c, s.of_c, out_.dnorm_c);
            for (Index j = 0; j < H; ++j) {
                dv[j] += (1 - s.k_c[j]) * dc[j];
                da[j] = dv[j] * g[j] * i[j] * (1 - i[j]);              // (5), (1)
                da[H + j] = dv[j] * s.c[j] * f[j] * (1 - f[j]);        // (5), (2)
                da[2 * H + j] = dv[j] * i[j] * (1 - g[j] * g[j]);      // (5), (3)
                dc[j] = s.k_c[j] * dc[j] + dv[j] * f[j];               // (5)
            }
            dp = da;
            end_products(0, rows);
        } else if (is_mingru(cell_)) {
            const double *const z = gate(0), *const n = gate(1);
            for (Index j = 0; j < H; ++j) {
                da[j] = dh[j] * (s.h[j] - n[j]) * z[j] * (1 - z[j]);                    // (3), (1)
                const bool curved = cell_ == Cell::mingru_positive && n[j] < 0.5;
                da[H + j] = dh[j] * (1 - z[j]) * (curved ? n[j] * (1 - n[j]) : 1);      // (3), (2)
                dh[j] *= z[j];                                                          // (3)
            }
            dp = Doubles(rows);
        } else {
            for (Index j = 0; j < H; ++j) {
                const double h = s.gates[j];
                da[j] = dh[j] * (cell_ == Cell::rnn_tanh ? 1 - h * h : h > 0 ? 1 : 0);  // (1)
                dh[j] = 0;
            }
            dp = da;
            end_products(0, rows);
        }
        for (Index k = 0; k < rows; ++k) out_.dbias_ih[k] += da[k];
        normalise_back(da, 0, rows, in_.norm_ih, s.of_x, out_.dnorm_ih);
        multiply_back(in_.weight_ih, da, 0, rows, s_.I, dx);
        multiply_back(in_.weight_hh, dp, 0, products_of_h, R, dseen.data());
        for (Index j = 0; j < R; ++j) dh[j] += kept[j] + s.mask[j] * dseen[j];
        add_outer(out_.dweight_ih, da, 0, rows, x, s_.I);
        add_outer(out_.dweight_hh, dp, 0, products_of_h, s.seen.data(), R);
        add_outer(out_.dweight_hh, dp, products_of_h, rows, s.m.data(), H);
    }

    // Row k of a matrix (rows, columns) times v.
    static double product(const Doubles& matrix, Index k, const double* v, Index columns) {
        const double* row = &matrix[k * columns];
        double sum = 0;
        for (Index i = 0; i < columns; ++i) sum += row[i] * v[i];
        return sum;
    }

    // to += v times the matrix (rows, columns), of its rows from `begin` to `end`
    static void multiply_back(const Doubles& matrix, const Doubles& v, Index begin, Index end, Index columns,
                              double* to) {
        for (Index k = begin; k < end; ++k)
            for (Index i = 0; i < columns; ++i) to[i] += v[k] * matrix[k * columns + i];
    }

    // The matrix (rows, columns), its rows from `begin` to `end`, += the outer product of v and u
    static void add_outer(Doubles& matrix, const Doubles& v, Index begin, Index end, const double* u, Index columns) {
        for (Index k = begin; k < end; ++k)
            for (Index i = 0; i < columns; ++i) matrix[k * columns + i] += v[k] * u[i];
    }

    const Cell cell_;
    const Shape s_;
    const Index G_;
    const Inputs& in_;
    Results out_;
};

}  // namespace gatewise
