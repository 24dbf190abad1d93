// A step in float32, straight from the layer's own weights: rows of a matrix times rows of the batch.
//
// Packed weights would be 5 to 15 % faster while they lie in the second cache, but a copy can become stale. The steps
// bear the numbers of the equations in kernels/reference.py.
#pragma once

#include <tuple>

#include "activations.h"
#include "stream.h"
#include "threads.h"
#include "unpacked.h"

namespace gatewise {
namespace {

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
    template <typename Body>
    void for_tiles(const Body& body) const {
        for_unpacked_tiles(s_.B, panel_begin_, panel_end_, body);
    }

    template <int MR>
    void step_after(Index row, Index panel) const {
        const Index unit = panel * lanes, used = lanes_used(s_.H, panel);
        Vec r[MR], z[MR], n[MR], hn[MR];
        multiply_panel(r, {inputs<MR>(0, row, panel), states<MR>(0, h_, row, panel)}, used);
        multiply_panel(z, {inputs<MR>(1, row, panel), states<MR>(1, h_, row, panel)}, used);
        multiply_panel(n, {inputs<MR>(2, row, panel)}, used);
        multiply_panel(hn, {states<MR>(2, h_, row, panel)}, used);
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
        multiply_panel(r, {inputs<MR>(0, row, panel), states<MR>(0, h_, row, panel)}, used);
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
        multiply_panel(z, {inputs<MR>(1, row, panel), states<MR>(1, h_, row, panel)}, used);
        multiply_panel(n, {inputs<MR>(2, row, panel), states<MR>(2, reset_state_, row, panel)}, used);
        for (int m = 0; m < MR; ++m) {
            const Index at = (row + m) * s_.H + unit;
            const Vec h = load_first(h_ + at, used);
            z[m] = sigmoid(z[m] + bias(w_.bias_ih, 1, panel) + bias(w_.bias_hh, 1, panel));  // (2)
            n[m] = tanh(n[m] + bias(w_.bias_ih, 2, panel) + bias(w_.bias_hh, 2, panel));     // (3)
            store_first(next_ + at, n[m] + z[m] * (h - n[m]), used);                         // (4)
        }
    }

    // The rows of a gate in a panel, times rows of the inputs or of states (B, H).
    template <int MR>
    Product<MR> inputs(Index gate, Index row, Index panel) const {
        return {w_.ih + (gate * s_.H + panel * lanes) * inputs_, inputs_,
                [&](Index m) { return x_ + (row + m) * inputs_; }};
    }
    template <int MR>
    Product<MR> states(Index gate, const float* states, Index row, Index panel) const {
        return {w_.hh + (gate * s_.H + panel * lanes) * s_.H, s_.H,
                [&](Index m) { return states + (row + m) * s_.H; }};
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
    WeightsOf<float> w_{};
    Index inputs_ = 0;
    const float* x_ = nullptr;
    const float* h_ = nullptr;
    float* next_ = nullptr;
};

}  // namespace
}  // namespace gatewise
