// A step in float32, straight from the layer's own weights: rows of a matrix times rows of the batch.
//
// Packed weights would be 5 to 15 % faster while they lie in the second cache, but a copy can become stale. The steps
// bear the numbers of the equations in kernels/reference.py.
#pragma once

#include "activations.h"
#include "plan.h"
#include "stream.h"

namespace gatewise {
namespace {

// Rows of w (units, depth) times rows of x (rows, depth).
struct Product {
    const float* w;
    const float* x;
    Index depth;
};

// sums[i][m] = the sum of the products' vectors, of unit i and row m: its lanes are still to be added. Units from `used`
// on repeat the last one, so that no memory past the weights is touched.
template <int Units, int MR, int Count>
inline void multiply_rows(Vec (*sums)[MR], const Product (&products)[Count], Index first, Index used) {
    Vec sum[Units][MR] = {};
    for (const Product& product : products) {
        const Index depth = product.depth;
        const float* w[Units];
        for (int i = 0; i < Units; ++i) w[i] = product.w + std::min<Index>(first + i, used - 1) * depth;
        Index k = 0;
        const auto add_columns = [&](auto load_columns) {
            Vec x[MR];
#pragma GCC unroll 4
            for (int m = 0; m < MR; ++m) x[m] = load_columns(product.x + m * depth + k);
#pragma GCC unroll 16
            for (int i = 0; i < Units; ++i) {
                const Vec row = load_columns(w[i] + k);
#pragma GCC unroll 4
                for (int m = 0; m < MR; ++m) sum[i][m] += row * x[m];
            }
        };
        for (; k + lanes <= depth; k += lanes) add_columns([](const float* p) { return load(p); });
        if (k < depth) add_columns([&](const float* p) { return load_first(p, depth - k); });
    }
    for (int i = 0; i < Units; ++i)
        for (int m = 0; m < MR; ++m) sums[i][m] = sum[i][m];
}

// totals[m] = the sum of the products, for MR rows and the `used` units of a panel, one unit a lane.
template <int MR, int Count>
inline void multiply_panel(Vec (&totals)[MR], const Product (&products)[Count], Index used) {
    constexpr int units = lanes / (MR > 2 ? 4 : MR);  // whose sums are in registers at once
    Vec sums[lanes][MR];
    for (int first = 0; first < lanes; first += units)
        multiply_rows<units, MR, Count>(sums + first, products, first, used);
    for (int m = 0; m < MR; ++m) {
        Vec unit[lanes];
        for (int i = 0; i < lanes; ++i) unit[i] = sums[i][m];
        // Half of each vector is added to its other half, round by round, while the vectors of two units interleave.
#pragma GCC unroll 4
        for (int half = lanes / 2; half > 0; half /= 2)
#pragma GCC unroll 8
            for (int i = 0; i < half; ++i) {
                interleave(unit[i], unit[i + half], std::make_integer_sequence<int, lanes>{});
                unit[i] += unit[i + half];
            }
        totals[m] = unit[0];
    }
}

class Float32Step {
  public:
    Float32Step(const StreamStep& call, float* workspace, int thread, int team, Barrier& barrier)
        : call_(call), s_(call.shape), reset_state_(workspace), team_(team), barrier_(barrier) {
        std::tie(panel_begin_, panel_end_) = part_of(panels(s_.H), thread, team);
    }

    static Index workspace_size(const StreamShape& s) { return s.reset == Reset::before ? s.B * s.H : 0; }

    void run() {
        const Index layer_size = s_.B * s_.H;
        for (Index layer = 0; layer < s_.L; ++layer) {
            if (layer > 0) barrier_.wait(team_);  // the inputs are whole
            w_ = call_.weights[layer];
            inputs_ = s_.inputs(layer);
            x_ = layer == 0 ? call_.x : call_.next + (layer - 1) * layer_size;
            h_ = call_.state + layer * layer_size;
            next_ = call_.next + layer * layer_size;
            if (s_.reset == Reset::after) {
                for_tiles([&](auto mr, Index row, Index panel) { step_after<mr.value>(row, panel); });
            } else {
                for_tiles([&](auto mr, Index row, Index panel) { reset_before<mr.value>(row, panel); });
                barrier_.wait(team_);  // r * h is whole
                for_tiles([&](auto mr, Index row, Index panel) { step_before<mr.value>(row, panel); });
            }
        }
    }

  private:
    // body(Constant<MR>, row, panel): rows run innermost, so that a panel's weights stay in the first cache.
    template <typename Body>
    void for_tiles(const Body& body) const {
        for (Index panel = panel_begin_; panel < panel_end_; ++panel) {
            Index row = 0;
            for (; row + 4 <= s_.B; row += 4) body(Constant<4>{}, row, panel);
            switch (s_.B - row) {
                case 1: body(Constant<1>{}, row, panel); break;
                case 2: body(Constant<2>{}, row, panel); break;
                case 3: body(Constant<3>{}, row, panel); break;
            }
        }
    }

    template <int MR>
    void step_after(Index row, Index panel) const {
        const Index unit = panel * lanes, used = lanes_used(s_.H, panel);
        Vec r[MR], z[MR], n[MR], hn[MR];
        multiply_panel<MR>(r, {inputs(0, row, panel), states(0, h_, row, panel)}, used);
        multiply_panel<MR>(z, {inputs(1, row, panel), states(1, h_, row, panel)}, used);
        multiply_panel<MR>(n, {inputs(2, row, panel)}, used);
        multiply_panel<MR>(hn, {states(2, h_, row, panel)}, used);
        for (int m = 0; m < MR; ++m) {
            const Index at = (row + m) * s_.H + unit;
            const Vec h = load_first(h_ + at, used);
            r[m] = sigmoid(r[m] + bias(w_.bias_ih, 0, panel) + bias(w_.bias_hh, 0, panel));  // (1)
            z[m] = sigmoid(z[m] + bias(w_.bias_ih, 1, panel) + bias(w_.bias_hh, 1, panel));  // (2)
            hn[m] += bias(w_.bias_hh, 2, panel);
            n[m] = tanh(n[m] + bias(w_.bias_ih, 2, panel) + r[m] * hn[m]);                   // (3)
            store_first(next_ + at, n[m] + z[m] * (h - n[m]), used);                         // (4)
        }
    }

    template <int MR>
    void reset_before(Index row, Index panel) const {
        const Index unit = panel * lanes, used = lanes_used(s_.H, panel);
        Vec r[MR];
        multiply_panel<MR>(r, {inputs(0, row, panel), states(0, h_, row, panel)}, used);
        for (int m = 0; m < MR; ++m) {
            const Index at = (row + m) * s_.H + unit;
            r[m] = sigmoid(r[m] + bias(w_.bias_ih, 0, panel) + bias(w_.bias_hh, 0, panel));  // (1)
            store_first(reset_state_ + at, r[m] * load_first(h_ + at, used), used);
        }
    }

    template <int MR>
    void step_before(Index row, Index panel) const {
        const Index unit = panel * lanes, used = lanes_used(s_.H, panel);
        Vec z[MR], n[MR];
        multiply_panel<MR>(z, {inputs(1, row, panel), states(1, h_, row, panel)}, used);
        multiply_panel<MR>(n, {inputs(2, row, panel), states(2, reset_state_, row, panel)}, used);
        for (int m = 0; m < MR; ++m) {
            const Index at = (row + m) * s_.H + unit;
            const Vec h = load_first(h_ + at, used);
            z[m] = sigmoid(z[m] + bias(w_.bias_ih, 1, panel) + bias(w_.bias_hh, 1, panel));  // (2)
            n[m] = tanh(n[m] + bias(w_.bias_ih, 2, panel) + bias(w_.bias_hh, 2, panel));     // (3)
            store_first(next_ + at, n[m] + z[m] * (h - n[m]), used);                         // (4)
        }
    }

    // The rows of a gate in a panel, times rows of the inputs or of states (B, H).
    Product inputs(Index gate, Index row, Index panel) const {
        return {w_.ih + (gate * s_.H + panel * lanes) * inputs_, x_ + row * inputs_, inputs_};
    }
    Product states(Index gate, const float* states, Index row, Index panel) const {
        return {w_.hh + (gate * s_.H + panel * lanes) * s_.H, states + row * s_.H, s_.H};
    }

    Vec bias(const float* biases, Index gate, Index panel) const {
        return biases ? load_first(biases + gate * s_.H + panel * lanes, lanes_used(s_.H, panel)) : Vec{};
    }

    const StreamStep& call_;
    const StreamShape& s_;
    float* const reset_state_;  // before: r * h (B, H) of the layer in hand
    const int team_;
    Barrier& barrier_;
    Index panel_begin_, panel_end_;
    // Of the layer in hand: weights, number of inputs, inputs (B, inputs), state before and after (B, H).
    GruWeights w_{};
    Index inputs_ = 0;
    const float* x_ = nullptr;
    const float* h_ = nullptr;
    float* next_ = nullptr;
};

}  // namespace
}  // namespace gatewise
