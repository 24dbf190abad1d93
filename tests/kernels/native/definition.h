// The GRU and its gradients in double precision, element by element: what the kernels are compared with. The equations
// bear the numbers of kernels/reference.py.
#pragma once

#include <cmath>
#include <vector>

#include "gru.h"

namespace gatewise {

using Doubles = std::vector<double>;

struct GruInputs {
    Doubles x;             // (T, B, I)
    Doubles h0;            // (B, H)
    Doubles weight_ih;     // (3H, I): the gates r, z, n, one below the other
    Doubles weight_hh;     // (3H, H)
    Doubles bias_ih;       // (3H,)
    Doubles bias_hh;       // (3H,)
    Doubles dy;            // (T, B, H): gradient of y
    Doubles dhn;           // (B, H): gradient of the last state
};

struct GruResults {
    Doubles y;  // (T, B, H)
    Doubles hn;
    Doubles dx, dh0, dweight_ih, dweight_hh, dbias_ih, dbias_hh;  // as the inputs
};

class GruDefinition {
  public:
    GruDefinition(const GruShape& shape, const GruInputs& inputs) : s_(shape), in_(inputs) {
        out_.hn = in_.h0;
        out_.dh0 = in_.dhn;
        out_.dx.assign(in_.x.size(), 0);
        out_.dweight_ih.assign(in_.weight_ih.size(), 0);
        out_.dweight_hh.assign(in_.weight_hh.size(), 0);
        out_.dbias_ih.assign(in_.bias_ih.size(), 0);
        out_.dbias_hh.assign(in_.bias_hh.size(), 0);
        steps_.resize(static_cast<std::size_t>(s_.T * s_.B));
    }

    GruResults results() {
        for (Index t = 0; t < s_.T; ++t)
            for (Index b = 0; b < s_.B; ++b) {
                double* h = &out_.hn[b * s_.H];
                forward(&in_.x[(t * s_.B + b) * s_.I], h, steps_[t * s_.B + b]);
                out_.y.insert(out_.y.end(), h, h + s_.H);
            }
        for (Index t = s_.T - 1; t >= 0; --t)
            for (Index b = 0; b < s_.B; ++b) {
                const Index i = t * s_.B + b;
                for (Index j = 0; j < s_.H; ++j) out_.dh0[b * s_.H + j] += in_.dy[i * s_.H + j];
                backward(&in_.x[i * s_.I], steps_[i], &out_.dh0[b * s_.H], &out_.dx[i * s_.I]);
            }
        return out_;
    }

  private:
    struct Step {
        Doubles h, r, z, n;  // h: the state before
        Doubles c;           // after: W_hn h + b_hn; before: r * h
    };

    static double sigmoid(double a) { return 1 / (1 + std::exp(-a)); }

    // Row j of gate g of a matrix (3H, columns) times v.
    double product(const Doubles& matrix, Index g, Index j, const double* v, Index columns) const {
        const double* row = &matrix[(g * s_.H + j) * columns];
        double sum = 0;
        for (Index k = 0; k < columns; ++k) sum += row[k] * v[k];
        return sum;
    }
    double input(Index g, Index j, const double* x) const {
        return product(in_.weight_ih, g, j, x, s_.I) + in_.bias_ih[g * s_.H + j];
    }
    double hidden(Index g, Index j, const double* h) const {
        return product(in_.weight_hh, g, j, h, s_.H) + in_.bias_hh[g * s_.H + j];
    }

    void forward(const double* x, double* h, Step& s) const {
        s = {Doubles(h, h + s_.H), Doubles(s_.H), Doubles(s_.H), Doubles(s_.H), Doubles(s_.H)};
        for (Index j = 0; j < s_.H; ++j) {
            s.r[j] = sigmoid(input(0, j, x) + hidden(0, j, s.h.data()));  // (1)
            s.z[j] = sigmoid(input(1, j, x) + hidden(1, j, s.h.data()));  // (2)
            s.c[j] = s_.reset == Reset::after ? hidden(2, j, s.h.data()) : s.r[j] * s.h[j];
        }
        for (Index j = 0; j < s_.H; ++j) {
            const double from_past = s_.reset == Reset::after ? s.r[j] * s.c[j] : hidden(2, j, s.c.data());
            s.n[j] = std::tanh(input(2, j, x) + from_past);     // (3)
            h[j] = (1 - s.z[j]) * s.n[j] + s.z[j] * s.h[j];     // (4)
        }
    }

    // dh: the gradient of the state after the step, replaced by that of the state before.
    void backward(const double* x, const Step& s, double* dh, double* dx) {
        Doubles dr(s_.H), dz(s_.H), dn(s_.H), dhn(s_.H);  // before their activations; dhn: of W_hn (...) + b_hn
        for (Index j = 0; j < s_.H; ++j) {
            dn[j] = dh[j] * (1 - s.z[j]) * (1 - s.n[j] * s.n[j]);               // (4), (3)
            dz[j] = dh[j] * (s.h[j] - s.n[j]) * s.z[j] * (1 - s.z[j]);          // (4), (2)
            dh[j] *= s.z[j];                                                    // (4)
            dhn[j] = s_.reset == Reset::after ? dn[j] * s.r[j] : dn[j];         // (3)
        }
        Doubles dc(s_.H);
        multiply_back(in_.weight_hh, 2, dhn, s_.H, dc.data());
        for (Index j = 0; j < s_.H; ++j) {
            const bool after = s_.reset == Reset::after;
            dr[j] = (after ? dn[j] * s.c[j] : dc[j] * s.h[j]) * s.r[j] * (1 - s.r[j]);  // (3), (1)
            dh[j] += after ? dc[j] : dc[j] * s.r[j];                                     // (3)
        }
        multiply_back(in_.weight_hh, 0, dr, s_.H, dh);
        multiply_back(in_.weight_hh, 1, dz, s_.H, dh);
        const Doubles* gates[] = {&dr, &dz, &dn};
        for (Index g = 0; g < 3; ++g) {
            multiply_back(in_.weight_ih, g, *gates[g], s_.I, dx);
            add_outer(out_.dweight_ih, out_.dbias_ih, g, *gates[g], x, s_.I);
        }
        add_outer(out_.dweight_hh, out_.dbias_hh, 0, dr, s.h.data(), s_.H);
        add_outer(out_.dweight_hh, out_.dbias_hh, 1, dz, s.h.data(), s_.H);
        add_outer(out_.dweight_hh, out_.dbias_hh, 2, dhn, s_.reset == Reset::after ? s.h.data() : s.c.data(), s_.H);
    }

    // to += v times the rows of gate g of a matrix (3H, columns)
    void multiply_back(const Doubles& matrix, Index g, const Doubles& v, Index columns, double* to) const {
        for (Index j = 0; j < s_.H; ++j) {
            const double* row = &matrix[(g * s_.H + j) * columns];
            for (Index k = 0; k < columns; ++k) to[k] += v[j] * row[k];
        }
    }

    // Gate g of a matrix (3H, columns) += the outer product of v and u; of its bias += v
    void add_outer(Doubles& matrix, Doubles& bias, Index g, const Doubles& v, const double* u, Index columns) const {
        for (Index j = 0; j < s_.H; ++j) {
            double* row = &matrix[(g * s_.H + j) * columns];
            for (Index k = 0; k < columns; ++k) row[k] += v[j] * u[k];
            bias[g * s_.H + j] += v[j];
        }
    }

    const GruShape s_;
    const GruInputs& in_;
    GruResults out_;
    std::vector<Step> steps_;
};

}  // namespace gatewise
