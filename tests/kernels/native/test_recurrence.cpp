// Runs the kernels of every instruction set that this processor has, on random shapes, layouts and thread counts, and
// compares them with the equations in double precision. Needs neither Python nor torch, so that it can run under
// sanitizers.
//
//     test_recurrence [SEED] [SHAPES]     SHAPES: how many random ones, beside those that are always run
#include <memory>
#include <numeric>
#include <thread>

#include "checks.h"
#include "definition.h"

namespace gatewise {
namespace {

// Of the largest element of an array; arrays of smaller numbers than least_state or least_gradient are held to that,
// and sums over all steps of all rows, which may cancel out, to the root of their number times that. In bfloat16 h and
// r * h are rounded, however small the state becomes of which they are a part.
struct Tolerance {
    double states, gradients, least_state, least_gradient;
};
template <typename Number>
constexpr Tolerance tolerance{1e-4, 1e-4, 0.01, 0.01};
template <>
constexpr Tolerance tolerance<Bfloat16>{5e-3, 2e-2, 0.6, 0.15};

// ThreadSanitizer finds a race in one run, and waits for minutes where many threads share few cores.
#ifdef __SANITIZE_THREAD__
constexpr bool repeats = false;
const int thread_counts[] = {2, 4};
#else
constexpr bool repeats = true;
const int thread_counts[] = {1, 2, 3, 5};
#endif

std::string text(Cell cell) {
#define GATEWISE_CELL_TEXT(name) #name,
    const char* const names[] = {GATEWISE_CELLS(GATEWISE_CELL_TEXT)};
    return names[static_cast<int>(cell)];
}

std::string text(const Shape& s) {
    std::string text = "T" + std::to_string(s.T) + "-B" + std::to_string(s.B) + "-I" + std::to_string(s.I) + "-H" +
                       std::to_string(s.H) + (s.R > 0 ? "-R" + std::to_string(s.R) : "");
    if (!s.rows) return text;
    for (Index b = 0; b < s.B; ++b) text += (b == 0 ? "-lengths" : ",") + std::to_string(s.rows->lengths[b]);
    return text + (s.rows->packed ? "-packed" : "") + (s.rows->reverse ? "-reverse" : "") +
           (s.rows->resets.data ? "-resets" : "");
}

// Rows of any lengths, zeros among them.
struct RandomRows {
    std::vector<Index> order, lengths, active, offset;
    bool packed, reverse;
    Index places;             // of rows in a sequence
    std::vector<bool> taken;  // whether a row has a step there
    Guarded<bool> resets;
    Rows rows;

    RandomRows(const Shape& s, Random& random)
        : order(s.B), lengths(s.B), packed(random.one_in(2)), reverse(random.one_in(2)),
          places(choose_lengths(s, random)), taken(places, packed), resets(places) {
        for (Index b = 0; b < s.B && !packed; ++b)
            for (Index t = 0; t < lengths[b]; ++t) taken[t * s.B + order[b]] = true;
        for (Index i = 0; i < places; ++i) resets.data()[i] = random.one_in(4);
        resets.forbid_writing();
        const Index row = packed ? 1 : s.B;
        rows = {order.data(), lengths.data(), active.data(), offset.data(), packed, reverse,
                {random.one_in(2) ? resets.data() : nullptr, row, 1}};
    }

  private:
    Index choose_lengths(const Shape& s, Random& random) {
        const Index empty = random.one_in(8) ? 1 : 4;  // all of them, or one in four
        std::vector<Index> of_batch(s.B);
        for (Index& length : of_batch)
            length = random.one_in(empty) ? 0 : random.one_in(3) ? s.T : 1 + random.below(s.T);
        Index sum = std::accumulate(of_batch.begin(), of_batch.end(), Index{0});
        if (packed && sum == 0) of_batch[random.below(s.B)] = sum = 1;
        std::iota(order.begin(), order.end(), Index{0});
        std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return of_batch[a] > of_batch[b]; });
        for (Index b = 0; b < s.B; ++b) lengths[b] = of_batch[order[b]];
        for (Index t = 0, before = 0; t < s.T; before += active[t++]) {
            active.push_back(std::count_if(lengths.begin(), lengths.end(), [&](Index length) { return length > t; }));
            offset.push_back(before);
        }
        return packed ? sum : s.T * s.B;
    }
};

// What regularises a call, at random.
struct RandomRegularisation {
    Array<float> dropout, norm_ih, norm_hh, norm_c, norm_c_bias;
    Guarded<bool> zoneout_h, zoneout_c;  // (rows of the sequence, H)
    Regularisation call{};

    // A few units may have a variance so small that the rounding of a float is seen: they are not normalised.
    RandomRegularisation(Cell cell, const Shape& s, Index rows, Random& random)
        : dropout(Layout::any(1, s.B, s.H, random, true), random.one_in(2)),
          norm_ih(gains(gate_count(cell), s), s.H >= 13 && !random.one_in(3)),
          norm_hh(gains(gate_count(cell), s), norm_ih.present()),
          norm_c(gains(1, s), norm_ih.present() && cell == Cell::lstm),
          norm_c_bias(gains(1, s), norm_c.present() && !random.one_in(4)), zoneout_h(rows * s.H), zoneout_c(rows * s.H) {
        dropout.set([&] { return random.one_in(3) ? 0.0f : 1.5f; });
        for (Array<float>* gain : {&norm_ih, &norm_c, &norm_c_bias}) gain->set([&] { return 1 + random.uniform() / 2; });
        norm_hh.set([&] { return 0.3f + random.uniform() / 5; });  // with larger ones, long sequences are chaotic
        const Index step = s.rows && s.rows->packed ? s.H : s.B * s.H;
        const auto zoneout = [&](Guarded<bool>& mask, Sequence<const bool>& masks, double& part) {
            for (Index i = 0; i < mask.size(); ++i) mask.data()[i] = random.one_in(3);
            mask.forbid_writing();
            if (random.one_in(2)) masks = {mask.data(), step, s.H};
            else if (random.one_in(2)) part = 0.3;
        };
        zoneout(zoneout_h, call.zoneout_h, call.kept_h);
        if (cell == Cell::lstm) zoneout(zoneout_c, call.zoneout_c, call.kept_c);
        call.dropout = dropout.sequence<const float>();
        call.norm_ih = norm_ih.data(), call.norm_hh = norm_hh.data();
        call.norm_c = norm_c.data(), call.norm_c_bias = norm_c_bias.data();
    }

    void describe(Inputs& inputs) const {
        const auto masks = [](const Guarded<bool>& mask, const Sequence<const bool>& used, double part) {
            if (!used.data) return Doubles(static_cast<std::size_t>(mask.size()), part);
            return Doubles(mask.data(), mask.data() + mask.size());
        };
        inputs.zoneout_h = masks(zoneout_h, call.zoneout_h, call.kept_h);
        inputs.zoneout_c = masks(zoneout_c, call.zoneout_c, call.kept_c);
        const auto given = [](const Array<float>& array) { return array.present() ? array.values() : Doubles(); };
        inputs.dropout = given(dropout);
        inputs.norm_ih = given(norm_ih), inputs.norm_hh = given(norm_hh);
        inputs.norm_c = given(norm_c), inputs.norm_c_bias = given(norm_c_bias);
    }

  private:
    static Layout gains(Index gates, const Shape& s) { return Layout::contiguous(gates, 1, s.H); }
};

// What goes into a call, which gradients are wanted, and what should come out. Any number of calls at once may read it.
template <typename Number>
struct Problem {
    Cell cell;
    std::unique_ptr<const RandomRows> random_rows;
    Shape shape;
    std::unique_ptr<const RandomRegularisation> regularisation;  // null: of the plain kernels
    Index row_steps, every;  // every: steps from one checkpoint to the next
    bool has_c;
    Array<Number> x, h0, c0, weight_ih, weight_hh, weight_hr, bias_ih, bias_hh, dy, dhn, dcn;
    Layout y, dx;
    bool wants_dx, wants_dh0, wants_dc0, wants_dweight_ih, wants_dweight_hh, wants_dweight_hr, wants_dbias_ih,
        wants_dbias_hh;
    Results expected;

    // `extreme`: inputs that saturate every gate, infinities among them; the gradient of weight_ih is 0 * infinity.
    Problem(Cell c, const Shape& s, Random& random, bool with_rows, bool regularised, bool extreme = false)
        : cell(c), random_rows(with_rows ? new RandomRows(s, random) : nullptr),
          shape{s.T, s.B, s.I, s.H, with_rows ? &random_rows->rows : nullptr, false, units(random, s.H)},
          regularisation(regularised ? new RandomRegularisation(c, shape, places(), random) : nullptr),
          row_steps(s.T * s.B),
          every(1 + random.below(s.T + 1)), has_c(is_lstm(cell)), x(sequence(s.I, random, true)),
          h0(states(shape.state(), random)), c0(states(s.H, random), has_c),
          weight_ih(Layout::contiguous(gate_count(c), s.H, s.I)),
          weight_hh(Layout::contiguous(gate_count(c), s.H, shape.state()), has_recurrent_weights(c)),
          weight_hr(Layout::contiguous(1, shape.R, s.H), shape.R > 0),
          bias_ih(Layout::contiguous(1, gate_count(c), s.H), !random.one_in(4)),
          bias_hh(Layout::contiguous(1, gate_count(c), s.H), !random.one_in(4) && has_recurrent_weights(c)),
          dy(sequence(shape.state(), random, true), !random.one_in(4)),
          dhn(states(shape.state(), random), !random.one_in(4)),
          dcn(states(s.H, random), has_c && !random.one_in(4)), y(sequence(shape.state(), random, false)),
          dx(sequence(s.I, random, false)), wants_dx(!random.one_in(4)), wants_dh0(!random.one_in(4)),
          wants_dc0(has_c && !random.one_in(4)), wants_dweight_ih(!random.one_in(4) && !extreme),
          wants_dweight_hh(!random.one_in(4) && has_recurrent_weights(c)),
          wants_dweight_hr(shape.R > 0 && !random.one_in(4)), wants_dbias_ih(!random.one_in(4)),
          wants_dbias_hh(!random.one_in(4) && has_recurrent_weights(c)) {
        if (random_rows)
            row_steps = std::accumulate(random_rows->lengths.begin(), random_rows->lengths.end(), Index{0});
        const auto number = [&] { return random.uniform(); };
        const auto weight = [&] { return random.uniform() * 1.5f / std::sqrt(static_cast<float>(s.H)); };
        const float extremes[] = {infinity, -infinity, 3e38f, -3e38f, 95.0f, -95.0f, 1e-40f, -0.0f};
        const auto extreme_number = [&] { return extremes[random.below(8)]; };
        // NaN where a row has ended.
        const auto set_rows = [&](Array<Number>& array, Index width, const auto& value) {
            Index i = 0;
            array.set([&] { return random_rows && !random_rows->taken[i++ / width] ? nan : value(); });
        };
        if (extreme) set_rows(x, s.I, extreme_number); else set_rows(x, s.I, number);
        set_rows(dy, shape.state(), number);
        for (Array<Number>* array : {&h0, &c0, &dhn, &dcn}) array->set(number);
        for (Array<Number>* array : {&weight_ih, &weight_hh, &bias_ih, &bias_hh, &weight_hr}) array->set(weight);
        Inputs inputs{x.values(),       h0.values(),      c0.values(), weight_ih.values(), weight_hh.values(),
                      bias_ih.values(), bias_hh.values(), dy.values(), dhn.values(),       dcn.values(),
                      weight_hr.values()};
        if (regularisation) regularisation->describe(inputs);
        shape.normalised = regularisation && regularisation->norm_ih.present();
        expected = Definition(cell, shape, inputs).results();
    }

    WeightsOf<Number> weights() const {
        return {weight_ih.data(), weight_hh.data(), bias_ih.data(), bias_hh.data(), weight_hr.data()};
    }

    const Regularisation* regularised() const { return regularisation ? &regularisation->call : nullptr; }

  private:
    // Of the state of a cell with a projection, else 0.
    Index units(Random& random, Index H) const {
        return cell != Cell::lstm_projected ? 0 : random.one_in(4) ? H : 1 + random.below(H);
    }
    Index places() const { return random_rows ? random_rows->places : shape.T * shape.B; }
    Layout sequence(Index width, Random& random, bool may_share) const {
        if (!random_rows) return Layout::any(shape.T, shape.B, width, random, may_share);
        if (!random_rows->packed) return Layout::any(shape.T, shape.B, width, random, false, false);
        const Index row = width + random.below(3);
        return {random_rows->places, 1, width, row, row};
    }
    Layout states(Index width, Random& random) const { return Layout::any(1, shape.B, width, random, true); }
};

// None whose sums come so near the kink of a function that the rounding of a float decides.
template <typename Number>
std::unique_ptr<const Problem<Number>> random_problem(Cell cell, const Shape& shape, Random& random, bool regularised) {
    const bool with_rows = sizeof(Number) == sizeof(float) && random.one_in(2);
    for (;;) {
        auto problem = std::make_unique<const Problem<Number>>(cell, shape, random, with_rows, regularised);
        if (problem->expected.closest > 1e-5) return problem;
    }
}

// Of first and last states, as the kernels write them.
Layout h_layout(const Shape& s) { return Layout::contiguous(1, s.B, s.state()); }
Layout c_layout(const Shape& s) { return Layout::contiguous(1, s.B, s.H); }

// What a forward gives.
template <typename Number>
struct States {
    Array<Number> y, hn, cn;

    States(const Layout& sequence, const Shape& s, bool has_c) : y(sequence), hn(h_layout(s)), cn(c_layout(s), has_c) {}
};

// What a backward gives.
template <typename Number>
struct Gradients {
    Array<Number> dx, dh0, dc0, dweight_ih, dweight_hh, dweight_hr, dbias_ih, dbias_hh;
    Array<Number> dnorm_ih, dnorm_hh, dnorm_c, dnorm_c_bias;

    explicit Gradients(const Problem<Number>& p)
        : dx(p.dx, p.wants_dx), dh0(h_layout(p.shape), p.wants_dh0), dc0(c_layout(p.shape), p.wants_dc0),
          dweight_ih(Layout::contiguous(gate_count(p.cell), p.shape.H, p.shape.I), p.wants_dweight_ih),
          dweight_hh(Layout::contiguous(gate_count(p.cell), p.shape.H, p.shape.state()), p.wants_dweight_hh),
          dweight_hr(Layout::contiguous(1, p.shape.R, p.shape.H), p.wants_dweight_hr),
          dbias_ih(Layout::contiguous(1, gate_count(p.cell), p.shape.H), p.wants_dbias_ih),
          dbias_hh(Layout::contiguous(1, gate_count(p.cell), p.shape.H), p.wants_dbias_hh),
          dnorm_ih(gains(p, gate_count(p.cell)), p.shape.normalised && p.wants_dweight_ih),
          dnorm_hh(gains(p, gate_count(p.cell)), p.shape.normalised), dnorm_c(gains(p, 1), has_cell(p)),
          dnorm_c_bias(gains(p, 1), has_cell(p)) {}

    RegularisationGradients of_regularisation() const {
        if constexpr (std::is_same_v<Number, float>)
            return {dnorm_ih.data(), dnorm_hh.data(), dnorm_c.data(), dnorm_c_bias.data()};
        else return {};
    }

  private:
    static Layout gains(const Problem<Number>& p, Index gates) { return Layout::contiguous(gates, 1, p.shape.H); }
    static bool has_cell(const Problem<Number>& p) { return p.shape.normalised && p.has_c; }
};

// `scratch` fills the workspace beforehand.
template <typename Number>
void run(const KernelsOf<Number>& kernels, const ForwardOf<Number>& call, int threads, float scratch) {
    Guarded<float> workspace(
        kernels.forward_workspace_size(call.shape, call.saved != nullptr, call.kept != nullptr, threads));
    workspace.fill(scratch);
    kernels.forward(call, workspace.data(), threads);
}

// Runs a problem and keeps what came out.
template <typename Number>
struct Outputs {
    const Problem<Number>& problem;
    static constexpr bool has_checkpoints = std::is_same_v<Number, float>;

    // saving: all that the backward needs; kept: with what the call before has packed.
    States<Number> inference, saving, checkpointed, kept;
    Gradients<Number> gradients, gradients_of_checkpoints;

    Outputs(const Problem<Number>& p, const KernelsOf<Number>& kernels, int threads, float scratch = nan)
        : problem(p), inference(p.y, p.shape, p.has_c), saving(p.y, p.shape, p.has_c),
          checkpointed(p.y, p.shape, p.has_c), kept(p.y, p.shape, p.has_c), gradients(p),
          gradients_of_checkpoints(p) {
        const Shape& s = p.shape;
        const Index slot = kernels.slot(s.H);
        Guarded<float> saved(kernels.saved_size(s)), packed(std::max<Index>(kernels.kept_size(s), 1)),
            second_states(p.has_c ? (s.T + p.every - 1) / p.every * s.B * slot : 0);
        saved.fill(scratch);
        second_states.fill(scratch);
        packed.fill(0.0f);
        float *const keep = kernels.kept_size(s) > 0 ? packed.data() : nullptr,
                     *const checkpoints = p.has_c ? second_states.data() : nullptr;
        const auto x = p.x.template sequence<const Number>(), h0 = p.h0.template sequence<const Number>(),
                   c0 = p.c0.template sequence<const Number>();
        const auto forward = [&](States<Number>& to, float* save, Index every, float* kept, int threads) {
            ForwardOf<Number> call{s, p.weights(), x, h0, c0, to.y.template sequence<Number>(), to.hn.data(),
                                   to.cn.data(), save};
            if (every > 0) call.checkpoints = {checkpoints, s.B * slot, slot};
            call.every = every;
            call.kept = kept;
            call.regularisation = p.regularised();
            run(kernels, call, threads, scratch);
        };
        forward(inference, nullptr, 0, nullptr, threads);
        forward(saving, saved.data(), 0, nullptr, threads);
        if (has_checkpoints) forward(checkpointed, nullptr, p.every, nullptr, threads);
        forward(kept, nullptr, 0, keep, 1);
        forward(kept, nullptr, 0, keep, threads);
        saved.forbid_writing();
        second_states.forbid_writing();
        const auto backward = [&](States<Number>& of, const float* save, Index every, Gradients<Number>& to) {
            of.y.forbid_writing();
            Guarded<float> workspace(kernels.backward_workspace_size(s, every, threads));
            workspace.fill(scratch);
            kernels.backward({s, p.weights(), x, h0, c0, of.y.template sequence<const Number>(), save,
                              {every > 0 ? checkpoints : nullptr, s.B * slot, slot}, every,
                              p.dy.template sequence<const Number>(), p.dhn.template sequence<const Number>(),
                              p.dcn.template sequence<const Number>(), to.dx.template sequence<Number>(),
                              to.dh0.data(), to.dc0.data(), to.dweight_ih.data(), to.dweight_hh.data(),
                              to.dbias_ih.data(), to.dbias_hh.data(), p.regularised(), to.of_regularisation(),
                              to.dweight_hr.data()},
                             workspace.data(), threads);
        };
        backward(saving, saved.data(), 0, gradients);
        if (has_checkpoints) backward(checkpointed, nullptr, p.every, gradients_of_checkpoints);
    }

    // body(name, array, what it should be, tolerance, least_largest)
    template <typename Body>
    void for_each(const Body& body) const {
        const Results& expected = problem.expected;
        const Tolerance& t = tolerance<Number>;
        const double least_sum = t.least_gradient * std::sqrt(static_cast<double>(problem.row_steps));
        const auto each_state = [&](const States<Number>& s, const std::string& how) {
            body("y" + how, s.y, expected.y, t.states, t.least_state);
            body("hn" + how, s.hn, expected.hn, t.states, t.least_state);
            body("cn" + how, s.cn, expected.cn, t.states, t.least_state);
        };
        const auto each_gradient = [&](const Gradients<Number>& g, const std::string& how) {
            body("dx" + how, g.dx, expected.dx, t.gradients, t.least_gradient);
            body("dh0" + how, g.dh0, expected.dh0, t.gradients, t.least_gradient);
            body("dc0" + how, g.dc0, expected.dc0, t.gradients, t.least_gradient);
            body("dweight_ih" + how, g.dweight_ih, expected.dweight_ih, t.gradients, least_sum);
            body("dweight_hh" + how, g.dweight_hh, expected.dweight_hh, t.gradients, least_sum);
            body("dweight_hr" + how, g.dweight_hr, expected.dweight_hr, t.gradients, least_sum);
            body("dbias_ih" + how, g.dbias_ih, expected.dbias_ih, t.gradients, least_sum);
            body("dbias_hh" + how, g.dbias_hh, expected.dbias_hh, t.gradients, least_sum);
            body("dnorm_ih" + how, g.dnorm_ih, expected.dnorm_ih, t.gradients, least_sum);
            body("dnorm_hh" + how, g.dnorm_hh, expected.dnorm_hh, t.gradients, least_sum);
            body("dnorm_c" + how, g.dnorm_c, expected.dnorm_c, t.gradients, least_sum);
            body("dnorm_c_bias" + how, g.dnorm_c_bias, expected.dnorm_c_bias, t.gradients, least_sum);
        };
        const std::string checkpoints = " with checkpoints every " + std::to_string(problem.every);
        each_state(inference, " without saved");
        each_state(saving, "");
        if (has_checkpoints) each_state(checkpointed, checkpoints);
        each_state(kept, " with kept weights");
        each_gradient(gradients, "");
        if (has_checkpoints) each_gradient(gradients_of_checkpoints, checkpoints);
    }
};

template <typename Number>
void check_right(const std::string& where, const Outputs<Number>& outputs) {
    outputs.for_each([&](const std::string& name, const Array<Number>& array, const Doubles& expected,
                         double tolerance, double least_largest) {
        check_close(where, name, array, expected, tolerance, least_largest);
    });
}

template <typename Number>
void check_same(const std::string& where, const Outputs<Number>& a, const Outputs<Number>& b) {
    using Numbers = Array<Number>;
    std::vector<const Numbers*> others;
    b.for_each(
        [&](const std::string&, const Numbers& array, const Doubles&, double, double) { others.push_back(&array); });
    std::size_t i = 0;
    a.for_each([&](const std::string& name, const Numbers& array, const Doubles&, double, double) {
        if (!array.same_bits(*others[i++])) fail(where, name + ": other bits in the second run");
    });
}

// Each sequence of row b of the sweep, alone and in the order of its steps, gives the same bits as it does there.
template <typename Number>
void check_row_alone(const std::string& where, const Outputs<Number>& outputs, const KernelsOf<Number>& kernels,
                     int threads, Index b) {
    const Problem<Number>& p = outputs.problem;
    const Shape& s = p.shape;
    const Index length = s.rows->lengths[b], place = s.rows->order[b];
    const auto first_state = [&](const Array<Number>& array) {
        const auto all = array.template sequence<const Number>();
        return Sequence<const Number>{array.present() ? all.at(0, place) : nullptr, all.step, all.row};
    };
    const Doubles x_values = p.x.values(), y_values = outputs.saving.y.values();
    const auto check_equal = [&](const char* name, const Array<Number>& array, const auto& whole) {
        const Doubles alone = array.values();
        for (std::size_t i = 0; i < alone.size(); ++i)
            if (alone[i] != whole(static_cast<Index>(i))) return fail(where, name + std::string(": other bits alone"));
    };
    for (Index begin = 0, end = 0; begin < length; begin = end) {
        for (end = begin + 1; end < length && !begins(s, end, b);) ++end;
        const auto of_step = [&](const Doubles& values, Index width, Index i) {
            return values[position(s, begin + i / width, b) * width + i % width];
        };
        // A call of one step adds up in another order: where the whole is none, two steps of which the row takes one.
        const Index steps = end - begin, order = 0, active[] = {1, 0}, offset[] = {0, 1};
        const Rows one_step{&order, &steps, active, offset, true, false, {}};
        const bool longer = steps == 1 && s.T > 1;
        const Shape alone{longer ? 2 : steps, 1, s.I, s.H, longer ? &one_step : nullptr, false, s.R};
        Array<Number> x(Layout::contiguous(steps, 1, s.I));
        Index next = 0;
        x.set([&] { return static_cast<float>(of_step(x_values, s.I, next++)); });
        States<Number> states(Layout::contiguous(steps, 1, s.state()), alone, p.has_c);
        run(kernels, {alone, p.weights(), x.template sequence<const Number>(), first_state(p.h0), first_state(p.c0),
                      states.y.template sequence<Number>(), states.hn.data(), states.cn.data(), nullptr}, threads, nan);
        check_equal("y", states.y, [&](Index i) { return of_step(y_values, s.state(), i); });
        if (end < length) continue;
        const Doubles hn = outputs.saving.hn.values(), cn = outputs.saving.cn.values();
        check_equal("hn", states.hn, [&](Index i) { return hn[place * s.state() + i]; });
        check_equal("cn", states.cn, [&](Index i) { return cn[place * s.H + i]; });
    }
}

template <typename Number>
void check_saved_size(const std::string& where, const Problem<Number>& problem, const KernelsOf<Number>& kernels) {
    const Index H = problem.shape.H, slot = kernels.slot(H), size = kernels.saved_size(problem.shape);
    const Index own = problem.row_steps * kernels.slots * slot;
    if (slot < H || slot >= H + 16 || (problem.shape.normalised ? size <= own && own > 0 : size != own))
        fail(where, "saves " + std::to_string(size) + " floats");
}

// Every thread count, each twice with other scratch memory, and teams that come out smaller than the grid of the call,
// which changes nothing.
template <typename Number>
void check(const std::string& name, const Problem<Number>& problem, const KernelsOf<Number>& kernels) {
    const Shape& shape = problem.shape;
    check_saved_size(name + " " + text(shape), problem, kernels);
    for (int threads : thread_counts) {
        const std::string where = name + " " + text(shape) + " " + std::to_string(threads) + " threads";
        const Outputs<Number> outputs(problem, kernels, threads);
        check_right(where, outputs);
        for (Index b : {Index{0}, shape.B / 2})
            if (shape.rows && !problem.regularisation) check_row_alone(where, outputs, kernels, b == 0 ? threads : 1, b);
        if (repeats) check_same(where, outputs, Outputs<Number>(problem, kernels, threads, 1e30f));
        if (threads != 5) continue;
        team_limit = 2;
        check_same(where + " of which 2 come", outputs, Outputs<Number>(problem, kernels, threads));
        team_limit = 1;
        check_same(where + " of which 1 comes", outputs, Outputs<Number>(problem, kernels, threads));
        team_limit = 1000;
    }
}

// Several callers at once, each with its own workspace and outputs and all with the same inputs.
template <typename Number>
void check_concurrent_callers(const std::string& name, const Problem<Number>& problem,
                              const KernelsOf<Number>& kernels) {
    const std::string where = name + " " + text(problem.shape) + " several callers";
    const Outputs<Number> alone(problem, kernels, 2);
    std::vector<std::thread> callers;
    for (int i = 0; i < 3; ++i)
        callers.emplace_back([&] { check_same(where, alone, Outputs<Number>(problem, kernels, 2)); });
    for (std::thread& caller : callers) caller.join();
}

Shape random_shape(Random& random) {
    const Index sizes[] = {1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 24, 31, 32, 33, 47, 64, 65, 100};
    for (;;) {
        const auto size = [&](Index count) { return sizes[random.below(count)]; };
        const Shape s{size(18), size(16), size(19), size(20)};
        const Index work = s.T * s.B * s.H * (s.H + s.I);
        // Half of them are large enough for several threads.
        if (work < 1200000 && (random.one_in(2) || work > 70000)) return s;
    }
}

// Shapes that reach what random ones seldom do.
std::vector<Shape> special_shapes() {
    return {
        {1, 1, 1, 1},
        {5, 3, 1, 1},
        {1, 1, 64, 260},   // one step, several threads
        {1, 9, 23, 140},
        {8, 4, 20, 140},   // weights packed for the forward only
        {75, 20, 3, 48},   // several chunks of gates, of one thread and of groups
        {150, 7, 2, 31},
        {260, 1, 3, 17},
        {2, 9, 5, 365},    // weights larger than the cache: all threads share the rows
        {3, 70, 2, 16},    // groups of more than a tile's rows
    };
}

// All cells and shapes on one kind of number: `kernels` by name.
template <typename Number>
void test(const std::vector<std::pair<std::string, const Kernels*>>& all, const std::vector<Shape>& shapes,
          std::uint32_t seed) {
    constexpr bool float32 = sizeof(Number) == sizeof(float);
    Random random(seed);
#define GATEWISE_CELL_ITSELF(name) Cell::name,
    for (Cell cell : {GATEWISE_CELLS(GATEWISE_CELL_ITSELF)}) {
        if (!float32 && !is_gru(cell)) continue;  // widened by the caller
        std::vector<std::pair<std::string, const KernelsOf<Number>*>> of_cell, extended;
        for (const auto& [name, kernels] : all) {
            const std::string full_name = name + (float32 ? " " : " bfloat16 ") + text(cell);
            const KernelsOf<Number>* of_name;
            if constexpr (float32) of_name = kernels->float32[static_cast<int>(cell)];
            else of_name = kernels->bfloat16[static_cast<int>(cell)];
            if (of_name) of_cell.emplace_back(full_name, of_name); else fail(full_name, "is missing");
            if constexpr (float32)
                if (has_extended(cell))
                    extended.emplace_back("extended " + full_name, kernels->extended[static_cast<int>(cell)]);
        }
        for (const Shape& shape : shapes) {
            for (const bool regularised : {false, true}) {
                const auto& tested = regularised ? extended : of_cell;
                if (tested.empty()) continue;
                const auto problem = random_problem<Number>(cell, shape, random, regularised);
                for (const auto& [name, kernels] : tested) check(name, *problem, *kernels);
            }
        }
        for (const auto* tested : {&of_cell, &extended}) {
            if (tested->empty()) continue;
            const auto shared = random_problem<Number>(cell, {20, 8, 12, 40}, random, tested == &extended);
            for (const auto& [name, kernels] : *tested) check_concurrent_callers(name, *shared, *kernels);
        }
        if (cell == Cell::rnn_relu || is_mingru(cell)) continue;  // nothing saturates it
        const Problem<Number> extreme(cell, {9, 5, 1, 33}, random, false, false, true);
        for (const auto& [name, kernels] : of_cell) check(name, extreme, *kernels);
    }
}

int test(std::uint32_t seed, int shape_count) {
    std::printf("test_recurrence: seed %u, %d random shapes\n", seed, shape_count);
    std::fflush(stdout);
    std::vector<std::pair<std::string, const Kernels*>> float32, bfloat16;
    std::string names;
    const Kernels* best = nullptr;
    for (const char* name : {"amx", "avx512", "avx2", "portable"}) {
        const Kernels* kernels = kernels_for(name);
        if (!kernels) continue;
        if (!best) best = kernels;
        // What serves float32 under two names is run once.
        if (kernels->float32_name == std::string(name)) float32.emplace_back(name, kernels);
        if (kernels->bfloat16[static_cast<int>(Cell::gru_after)]) bfloat16.emplace_back(name, kernels);
    }
    if (!best || best != best_kernels()) fail("best_kernels", "is not the first of kernels_for");
    if (!system_others_may_sleep(nanoseconds())) fail("others_may_sleep", "before any call");
    if (system_others_may_sleep(nanoseconds())) fail("others_may_sleep", "after one");
    const std::int64_t now = nanoseconds();
    const double cost = system_barrier_nanoseconds(now);
    if (cost > 0 && (cost < 1 || cost > 1000 || system_barrier_nanoseconds(now) != cost))
        fail("barrier_nanoseconds", std::to_string(cost) + ", or another one when asked again");
    if (kernels_for("unknown")) fail("kernels_for", "knows \"unknown\"");
    for (const auto& kernels : float32) names += " " + kernels.first;
    for (const auto& kernels : bfloat16) names += ", " + kernels.first + " bfloat16";

    Random random(seed);
    std::vector<Shape> shapes = special_shapes();
    for (int i = 0; i < shape_count; ++i) shapes.push_back(random_shape(random));
    test<float>(float32, shapes, seed);
    if (!bfloat16.empty()) test<Bfloat16>(bfloat16, shapes, seed);
    return finish(std::to_string(shapes.size()) + " shapes on" + names);
}

}  // namespace
}  // namespace gatewise

int main(int argument_count, char** arguments) {
    const long seed = argument_count > 1 ? std::atol(arguments[1]) : 1;
    const int shape_count = argument_count > 2 ? std::atoi(arguments[2]) : 12;
    return gatewise::test(static_cast<std::uint32_t>(seed), shape_count);
}
