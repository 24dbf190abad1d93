// The module gatewise.kernels._native: the kernels, called with addresses and sizes that Python has checked.
//
// Addresses come as integers: 0.2 us a call, where arrays through DLPack take 5 to 12.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <numeric>
#include <tuple>
#include <type_traits>
#include <vector>

#include "alone.h"
#include "recurrence.h"
#include "memory.h"
#include "threads.h"

namespace nb = nanobind;

namespace gatewise {

void bind_stream(nb::module_& m);  // stream_bindings.cpp

namespace {

using Address = std::uintptr_t;

const Kernels* kernels = best_kernels();

thread_local Workspace workspaces[2];  // the second one for the other of two calls at once

// Never destroyed: tensors can outlive everything else at the end of the process.
BufferPool& buffers = *new BufferPool;

KeptWeights& kept_weights = *new KeptWeights;

// A tensor (floats,) of unset numbers, whose memory goes back to the pool when the tensor is gone.
nb::ndarray<nb::pytorch, float, nb::ndim<1>> buffer(Index floats) {
    auto* lent = new BufferPool::Buffer(buffers.take(floats));
    nb::capsule owner(lent, [](void* pointer) noexcept {
        auto* returned = static_cast<BufferPool::Buffer*>(pointer);
        buffers.give_back(*returned);
        delete returned;
    });
    return {lent->data, {static_cast<std::size_t>(floats)}, owner};
}

template <typename Number>
Number* pointer(Address address) {
    return reinterpret_cast<Number*>(address);
}

template <typename Number>
Sequence<Number> sequence(Address address, Index step, Index row) {
    return {pointer<Number>(address), step, row};
}

// What an extended call has beside the arguments of a plain one.
struct Extension {
    Regularisation regularisation;
    bool normalised;
    RegularisationGradients gradients;
};

Extension extension(Address dropout, Index dropout_row, Address zoneout_h, Index zoneout_h_step, Index zoneout_h_row,
                    double kept_h, Address zoneout_c, Index zoneout_c_step, Index zoneout_c_row, double kept_c,
                    Address norm_ih, Address norm_hh, Address norm_c, Address norm_c_bias, Address dnorm_ih,
                    Address dnorm_hh, Address dnorm_c, Address dnorm_c_bias) {
    return {{sequence<const float>(dropout, 0, dropout_row),
             sequence<const bool>(zoneout_h, zoneout_h_step, zoneout_h_row),
             sequence<const bool>(zoneout_c, zoneout_c_step, zoneout_c_row), kept_h, kept_c, pointer<float>(norm_ih),
             pointer<float>(norm_hh), pointer<float>(norm_c), pointer<float>(norm_c_bias)},
            norm_ih != 0,
            {pointer<float>(dnorm_ih), pointer<float>(dnorm_hh), pointer<float>(dnorm_c),
             pointer<float>(dnorm_c_bias)}};
}

template <typename Number>
const KernelsOf<Number>& kernels_of(int cell, const Extension* extension) {
    if constexpr (std::is_same_v<Number, float>) return extension ? *kernels->extended[cell] : *kernels->float32[cell];
    else return *kernels->bfloat16[cell];
}

// The rows of one call, from the lengths of the batch; none where every row takes every step.
class CallRows {
  public:
    // lengths: (B,) or null; resets: data null for none.
    CallRows(Index T, Index B, const std::int64_t* lengths, bool packed, bool reverse, Sequence<const bool> resets) {
        if (!lengths && !resets.data) return;
        order_.resize(static_cast<std::size_t>(B));
        std::iota(order_.begin(), order_.end(), Index{0});
        if (lengths) {
            std::stable_sort(order_.begin(), order_.end(), [&](Index a, Index b) { return lengths[a] > lengths[b]; });
            for (const Index row : order_) lengths_.push_back(static_cast<Index>(lengths[row]));
        } else {
            lengths_.assign(order_.size(), T);
        }
        Index before = 0, rows = B;
        for (Index t = 0; t < T; ++t, before += rows) {
            while (rows > 0 && lengths_[static_cast<std::size_t>(rows - 1)] <= t) --rows;
            active_.push_back(rows);
            offset_.push_back(before);
        }
        rows_ = {order_.data(), lengths_.data(), active_.data(), offset_.data(), packed, reverse, resets};
    }
    CallRows(const CallRows&) = delete;

    const Rows* get() const { return order_.empty() ? nullptr : &rows_; }
    const Rows& rows() const { return rows_; }

    // Steps of the longest row, but at least one.
    Index steps() const { return std::max<Index>(lengths_.empty() ? 0 : lengths_[0], 1); }

    // Rows that take more than one step, and those that take one.
    Index longer_rows() const { return active_.size() > 1 ? active_[1] : 0; }
    Index single_rows() const { return active_[0] - longer_rows(); }

  private:
    std::vector<Index> order_, lengths_, active_, offset_;
    Rows rows_{};
};

// A forward call. In training the weights change with each step; else they are kept packed.
template <typename Number>
void run_forward(Workspace& workspace, const KernelsOf<Number>& serving, ForwardOf<Number> call, int threads) {
    const Shape& s = call.shape;
    const Index keeps = call.saved ? 0 : serving.kept_size(s);
    float* scratch = workspace.at_least(serving.forward_workspace_size(s, call.saved != nullptr, keeps > 0, threads));
    if (keeps == 0) return serving.forward(call, scratch, threads);
    const KeptWeights::Buffer kept = kept_weights.take({&serving, call.weights.ih, call.weights.hh, s.I, s.H}, keeps);
    call.kept = kept.data;
    serving.forward(call, scratch, threads);
    kept_weights.give_back(kept);
}

// Rows that take one step are a call of their own: a call of one step adds up in another order than a longer one, and a
// row is to give the same alone and in any batch.
template <typename Number>
void run_forward_of_rows(Workspace& workspace, const KernelsOf<Number>& serving, ForwardOf<Number> call,
                         const CallRows& all, int threads) {
    const Index longer = all.longer_rows();
    if (longer == 0 || all.single_rows() == 0) return run_forward(workspace, serving, call, threads);
    const Index B = call.shape.B, one_step[] = {all.single_rows()}, offset[] = {0};
    // In packed data the rows of one step follow the longer ones: they begin as many rows later.
    const Index skipped = all.rows().packed ? longer : 0;
    Rows singles = all.rows();
    singles.order += longer;
    singles.lengths += longer;
    singles.active = one_step;
    singles.offset = offset;
    ForwardOf<Number> last = call;
    last.shape.rows = &singles;
    last.shape.T = 1;
    last.shape.B = B - longer;
    last.x.data += skipped * call.x.row;
    last.y.data += skipped * call.y.row;
    if (call.saved) last.saved += longer * serving.saved_size({1, 1, 1, call.shape.H, nullptr, call.shape.normalised});
    if (call.every > 0) last.checkpoints.data += longer * call.checkpoints.row;
    Regularisation of_last{};
    if (call.regularisation) {
        of_last = *call.regularisation;
        for (Sequence<const bool>* masks : {&of_last.zoneout_h, &of_last.zoneout_c})
            if (masks->data) masks->data += skipped * masks->row;
        last.regularisation = &of_last;
    }
    run_forward(workspace, serving, last, threads);
    call.shape.B = longer;
    run_forward(workspace, serving, call, threads);
}

// Second states of a batch, every so many steps: (T / every, B, slot).
template <typename Number, typename Float>
Sequence<Float> checkpoints_at(const KernelsOf<Number>& serving, Address address, Index B, Index H) {
    const Index slot = serving.slot(H);
    return {pointer<Float>(address), B * slot, slot};
}

template <typename Number>
void forward(Workspace& workspace, const Extension* extension, int cell, Index T, Index B, Index I, Index H, Index R, Address weight_ih,
             Address weight_hh, Address bias_ih, Address bias_hh, Address weight_hr, Address x, Index x_step, Index x_row, Address h0, Index h0_row, Address c0, Index c0_row,
             Address y, Index y_step, Index y_row, Address hn, Address cn, Address saved, Address checkpoints,
             Index every, Address lengths, bool packed, bool reverse, Address resets, Index resets_step,
             Index resets_row, int threads) {
    const KernelsOf<Number>& serving = kernels_of<Number>(cell, extension);
    const CallRows rows(T, B, pointer<const std::int64_t>(lengths), packed, reverse,
                        sequence<const bool>(resets, resets_step, resets_row));
    ForwardOf<Number> call{
        {rows.get() ? rows.steps() : T, B, I, H, rows.get(), extension && extension->normalised, R},
        {pointer<Number>(weight_ih), pointer<Number>(weight_hh), pointer<Number>(bias_ih), pointer<Number>(bias_hh),
         pointer<Number>(weight_hr)},
        sequence<const Number>(x, x_step, x_row),
        sequence<const Number>(h0, 0, h0_row),
        sequence<const Number>(c0, 0, c0_row),
        sequence<Number>(y, y_step, y_row),
        pointer<Number>(hn),
        pointer<Number>(cn),
        pointer<float>(saved),
        checkpoints_at<Number, float>(serving, checkpoints, B, H),
        every,
    };
    if (extension) call.regularisation = &extension->regularisation;
    if (rows.get()) return run_forward_of_rows(workspace, serving, call, rows, threads);
    run_forward(workspace, serving, call, threads);
}

template <typename Number>
void backward(Workspace& workspace, const Extension* extension, int cell, Index T, Index B, Index I, Index H, Index R, Address weight_ih,
              Address weight_hh, Address bias_ih, Address bias_hh, Address weight_hr, Address x, Index x_step, Index x_row, Address h0, Index h0_row, Address c0, Index c0_row,
              Address y, Index y_step, Index y_row, Address saved, Address checkpoints, Index every, Address dy,
              Index dy_step, Index dy_row, Address dhn, Index dhn_row, Address dcn, Index dcn_row, Address dx, Index dx_step, Index dx_row, Address dh0, Address dc0,
              Address dweight_ih, Address dweight_hh, Address dbias_ih, Address dbias_hh, Address dweight_hr, Address lengths, bool packed,
              bool reverse, Address resets, Index resets_step, Index resets_row, int threads) {
    const KernelsOf<Number>& serving = kernels_of<Number>(cell, extension);
    const CallRows rows(T, B, pointer<const std::int64_t>(lengths), packed, reverse,
                        sequence<const bool>(resets, resets_step, resets_row));
    BackwardOf<Number> call{
        {rows.get() ? rows.steps() : T, B, I, H, rows.get(), extension && extension->normalised, R},
        {pointer<Number>(weight_ih), pointer<Number>(weight_hh), pointer<Number>(bias_ih), pointer<Number>(bias_hh),
         pointer<Number>(weight_hr)},
        sequence<const Number>(x, x_step, x_row),
        sequence<const Number>(h0, 0, h0_row),
        sequence<const Number>(c0, 0, c0_row),
        sequence<const Number>(y, y_step, y_row),
        pointer<float>(saved),
        checkpoints_at<Number, const float>(serving, checkpoints, B, H),
        every,
        sequence<const Number>(dy, dy_step, dy_row),
        sequence<const Number>(dhn, 0, dhn_row),
        sequence<const Number>(dcn, 0, dcn_row),
        sequence<Number>(dx, dx_step, dx_row),
        pointer<Number>(dh0),
        pointer<Number>(dc0),
        pointer<Number>(dweight_ih),
        pointer<Number>(dweight_hh),
        pointer<Number>(dbias_ih),
        pointer<Number>(dbias_hh),
    };
    call.dweight_hr = pointer<Number>(dweight_hr);
    if (extension) {
        call.regularisation = &extension->regularisation;
        call.dregularisation = extension->gradients;
    }
    float* scratch = workspace.at_least(serving.backward_workspace_size(call.shape, every, threads));
    serving.backward(call, scratch, threads);
}

// The forms of a function in which Python calls it.
template <auto function>
struct Form;
template <typename... Arguments, void (*function)(Workspace&, const Extension*, Arguments...)>
struct Form<function> {
    static void plain(Arguments... arguments) { function(workspaces[0], nullptr, arguments...); }
    static void extended(const Extension* extension, Arguments... arguments) {
        function(workspaces[0], extension, arguments...);
    }

    // Two calls at once, on a thread each; they give what they give one after the other, to the last bit. Where a second
    // thread cannot be had, or does not run, they are made one after the other.
    using Call = std::tuple<Arguments...>;
    static void both(const Call& one, const Call& other) {
        const Call* const calls[] = {&one, &other};
        std::exception_ptr failures[2];  // they must not leave a thread
        Workspace* const scratch = workspaces;  // the caller's
        std::int64_t ends[2] = {};
        const auto run = [&](int i) {
            try {
                std::apply([&](Arguments... arguments) { function(scratch[i], nullptr, arguments...); }, *calls[i]);
            } catch (...) {
                failures[i] = std::current_exception();
            }
            ends[i] = nanoseconds();
        };
        const auto body = [&](int thread, int team) {
            if (team < 2) {
                run(0);
                run(1);
            } else if (thread < 2) {
                const Alone alone;
                run(thread);
            }
        };
        const auto call_body = [](const void* context, int thread, int team) {
            (*static_cast<decltype(&body)>(context))(thread, team);
        };
        const std::int64_t begin = nanoseconds();
        if (better_alone(begin)) {
            body(0, 1);
        } else {
            run_team(2, call_body, &body);
            report_loss(begin, nanoseconds(), std::abs(ends[1] - ends[0]));
        }
        for (const std::exception_ptr& failure : failures)
            if (failure) std::rethrow_exception(failure);
    }
};

}  // namespace
}  // namespace gatewise

NB_MODULE(_native, m) {
    using namespace gatewise;
    m.def("instruction_set", [] { return std::string(kernels->name); });
    m.def("float32_instruction_set", [] { return std::string(kernels->float32_name); });
#define GATEWISE_CELL_TEXT(name) #name,
    m.attr("cells") = std::vector<std::string>{GATEWISE_CELLS(GATEWISE_CELL_TEXT)};
    m.def("computes_bfloat16", [](int cell) { return kernels->bfloat16[cell] != nullptr; });
    m.def("use_instruction_set", [](const std::string& name) {
        const Kernels* chosen = kernels_for(name.c_str());
        if (chosen) kernels = chosen;
        return chosen != nullptr;
    });
    // Slots of a saved row, each of H floats padded to whole vectors, and the floats of such a row.
    m.def("slots", [](int cell) { return kernels->float32[cell]->slots; });
    m.def("saved_size", [](int cell, Index H) { return kernels->float32[cell]->saved_size({1, 1, 1, H}); });
    m.def("normalised_saved_size", [](int cell, Index H) {
        return kernels->extended[cell]->saved_size({1, 1, 1, H, nullptr, true});
    });
    m.def("buffer", &buffer);
    m.def("release_memory", [] {
        for (Workspace& workspace : workspaces) workspace.release();
        buffers.release();
        kept_weights.release();
    });
    m.def("forward", &Form<&forward<float>>::plain, nb::call_guard<nb::gil_scoped_release>());
    m.def("backward", &Form<&backward<float>>::plain, nb::call_guard<nb::gil_scoped_release>());
    // Each argument is a tuple of those of forward(), or backward().
    m.def("forward_both", &Form<&forward<float>>::both, nb::call_guard<nb::gil_scoped_release>());
    m.def("backward_both", &Form<&backward<float>>::both, nb::call_guard<nb::gil_scoped_release>());
    // Only where computes_bfloat16() holds, and without lengths and resets.
    m.def("forward_bfloat16", &Form<&forward<Bfloat16>>::plain, nb::call_guard<nb::gil_scoped_release>());
    m.def("backward_bfloat16", &Form<&backward<Bfloat16>>::plain, nb::call_guard<nb::gil_scoped_release>());
    nb::class_<Extension>(m, "Extension");
    m.def("extension", &extension);
    m.def("extended_forward", &Form<&forward<float>>::extended, nb::call_guard<nb::gil_scoped_release>());
    m.def("extended_backward", &Form<&backward<float>>::extended, nb::call_guard<nb::gil_scoped_release>());
    bind_stream(m);
#ifdef _OPENMP
    m.attr("openmp") = true;
#else
    m.attr("openmp") = false;
#endif
}
