// The class Stream of gatewise.kernels._native: a stack of layers with its state, one step a call.
//
// Arrays come through the buffer protocol: 0.1 us each.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "stream.h"

namespace nb = nanobind;

namespace gatewise {
namespace {

using Address = std::uintptr_t;
using Clock = std::chrono::steady_clock;

// Floats of uninitialised memory, aligned to 64 bytes.
class Floats {
  public:
    explicit Floats(Index size)
        : data_(static_cast<float*>(::operator new(static_cast<std::size_t>(size) * sizeof(float), alignment))),
          size_(size) {}
    float* data() const { return data_.get(); }
    Index size() const { return size_; }

  private:
    static constexpr std::align_val_t alignment{64};
    struct Release {
        void operator()(float* data) const { ::operator delete(data, alignment); }
    };
    std::unique_ptr<float, Release> data_;
    Index size_;
};

// A contiguous and aligned array of float32 behind a Python object, if it is one.
class ArrayView {
  public:
    ArrayView(nb::handle object, int flags) {
        if (PyObject_GetBuffer(object.ptr(), &view_, flags | PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) != 0) {
            PyErr_Clear();
            view_.obj = nullptr;
        }
    }
    ~ArrayView() { PyBuffer_Release(&view_); }
    ArrayView(const ArrayView&) = delete;
    ArrayView& operator=(const ArrayView&) = delete;

    // Whether it is (rows, columns), or (columns,) where there is one row.
    bool is(Index rows, Index columns) const {
        if (!view_.obj || view_.format == nullptr || std::string_view(view_.format) != "f") return false;
        if (reinterpret_cast<Address>(view_.buf) % alignof(float) != 0) return false;
        if (view_.ndim == 1) return rows == 1 && view_.shape[0] == columns;
        return view_.ndim == 2 && view_.shape[0] == rows && view_.shape[1] == columns;
    }
    float* data() const { return static_cast<float*>(view_.buf); }

  private:
    Py_buffer view_{};
};

// Attributes of a tensor, whose names are made only once.
class Attribute {
  public:
    explicit Attribute(const char* name) : name_(nb::steal(PyUnicode_InternFromString(name))) {}
    nb::object of(nb::handle object) const { return checked(PyObject_GetAttr(object.ptr(), name_.ptr())); }
    nb::object call(nb::handle object) const { return checked(PyObject_CallMethodNoArgs(object.ptr(), name_.ptr())); }

  private:
    static nb::object checked(PyObject* result) {
        if (!result) throw nb::python_error();
        return nb::steal(result);
    }
    nb::object name_;
};

// A parameter of a layer as it was. Another object in its place, another version, another memory, or rows and columns
// that have changed places make it another weight. 0.1 us each.
class WatchedWeight {
  public:
    WatchedWeight(nb::dict parameters, nb::str name)
        : parameters_(std::move(parameters)), name_(std::move(name)), weight_(parameters_[name_]),
          memory_(weight_.attr("detach")()), versioned_(!nb::cast<bool>(weight_.attr("is_inference")())),
          square_(is_square(weight_.attr("shape"))), version_(version()), address_(address()) {}

    const char* name() const { return name_.c_str(); }
    const float* data() const { return reinterpret_cast<const float*>(address_); }

    bool changed() const {
        return PyDict_GetItem(parameters_.ptr(), name_.ptr()) != weight_.ptr() || version() != version_ ||
               address() != address_ || (square_ && !nb::cast<bool>(weight_.attr("is_contiguous")()));
    }

  private:
    static bool is_square(nb::handle shape) { return nb::len(shape) == 2 && shape[0].equal(shape[1]); }
    long version() const {
        static const Attribute& attribute = *new Attribute("_version");
        return versioned_ ? nb::cast<long>(attribute.of(weight_)) : 0;
    }
    Address address() const {
        static const Attribute& data_ptr = *new Attribute("data_ptr");
        return nb::cast<Address>(data_ptr.call(weight_));
    }

    nb::dict parameters_;
    nb::str name_;
    nb::object weight_;
    nb::object memory_;  // kept, so that no other weight can take its address
    bool versioned_;     // tensors that were made under inference_mode are not
    bool square_;        // only then can a transposed view be in its place
    long version_;
    Address address_;
};

// Lines of 64 bytes that are summed in one step where that is less than 3 % of the weights.
constexpr Index lines_a_step = 512;
constexpr Index most_stripes = 31;

Index stripes_of(const StreamShape& s) {
    Index floats = 0;
    for (Index layer = 0; layer < s.L; ++layer) floats += 3 * s.H * (s.inputs(layer) + s.H + 2);
    return std::clamp<Index>(floats / (16 * lines_a_step), 1, most_stripes);
}

// Chooses between one thread and several for a step. Several are faster only while nothing else wants the cores and the
// steps follow each other closely: else a step of 8 us on one thread took 16 ms on two, or 6 ms where the other thread
// had gone to sleep, 10 ms after the last step. So a step after a longer break is made by one thread, and so are a
// number of steps after several threads have lost too much time in a row, compared with one; twice as many each time.
class Pace {
  public:
    int threads(int most, Clock::time_point now) const {
        return alone_ > 0 || now - last_end_ > longest_break ? 1 : most;
    }

    void took(int threads, Clock::time_point begin, Clock::time_point end) {
        const Clock::duration time = end - begin;
        last_end_ = end;
        if (threads == 1) {
            fastest_ = std::min(fastest_, time);
            alone_ = std::max(alone_ - 1, 0);
        } else if (time <= fastest_) {
            lost_ = {};
            pause_ = first_pause;
        } else if ((lost_ += time - fastest_) > most_lost) {
            lost_ = {};
            alone_ = pause_;
            pause_ = std::min(2 * pause_, last_pause);
            fastest_ = Clock::duration::max();
        }
    }

  private:
    static constexpr int first_pause = 16, last_pause = 1 << 16;  // steps
    static constexpr std::chrono::microseconds longest_break{1000};
    static constexpr std::chrono::microseconds most_lost{500};  // waking a thread up takes 50 to 300
    int alone_ = first_pause, pause_ = first_pause;
    Clock::duration fastest_ = Clock::duration::max();  // of the last steps by one thread
    Clock::duration lost_{};
    Clock::time_point last_end_;
};

// Multiply-adds from which on other Python threads may run during a step: to take the lock back can cost more.
constexpr Index long_step = 1000000;

class Stream {
  public:
    // parameters: those of the layer by name; names: of each of the L layers weight_ih, weight_hh, bias_ih, bias_hh,
    // the biases being None where there are none. All must be contiguous float32 on the CPU.
    Stream(const std::string& instruction_set, Index L, Index B, Index I, Index H, bool before, bool int8,
           const nb::dict& parameters, const nb::list& names)
        : kernels_(stream_kernels_for(instruction_set.c_str())),
          shape_{L, B, I, H, before ? Reset::before : Reset::after}, state_(L * B * H), next_(L * B * H), packed_(0),
          workspace_(0) {
        if (!kernels_) throw nb::value_error(("no kernels for streams are named " + instruction_set).c_str());
        std::vector<const float*> data;
        for (nb::handle name : names) {
            data.push_back(nullptr);
            if (name.is_none()) continue;
            watched_.emplace_back(parameters, nb::str(name));
            data.back() = watched_.back().data();
        }
        if (static_cast<Index>(data.size()) != 4 * L)
            throw nb::value_error("a stream needs four weights of each layer");
        for (auto of = data.begin(); of != data.end(); of += 4) weights_.push_back({of[0], of[1], of[2], of[3]});
        for (Index stripe = 0; stripe < stripes_of(shape_); ++stripe) sums_.push_back(sum_of(stripe));
        most_threads_ = kernels_->most_threads(shape_, int8);
        if (int8) {
            packed_ = Floats(kernels_->packed_size(shape_));
            kernels_->pack(shape_, weights_.data(), packed_.data());
        }
        workspace_ = Floats(kernels_->workspace_size(shape_, int8, most_threads_));
        for (Index layer = 0; layer < L; ++layer) work_ += 3 * B * H * (H + shape_.inputs(layer));
        std::fill_n(state_.data(), state_.size(), 0.0f);
    }

    // Takes x (B, I) and writes the top layer's state to h (B, H), both float32; null. Where nothing was done instead:
    // "x" if it is not such an array, the name of a weight that has changed, or "content" if that of some weight has.
    const char* step(nb::handle x, nb::handle h, int threads) {
        for (const WatchedWeight& weight : watched_)
            if (weight.changed()) return weight.name();
        const ArrayView from(x, 0), to(h, PyBUF_WRITABLE);
        if (!from.is(shape_.B, shape_.I) || !to.is(shape_.B, shape_.H)) return "x";
        if (work_ < long_step) return advance(from.data(), to.data(), threads);
        const nb::gil_scoped_release others_may_run;
        return advance(from.data(), to.data(), threads);
    }

    // The state (L, B, H), copied to an address or from there.
    void read(Address to) {
        const std::lock_guard lock(mutex_);
        std::copy_n(state_.data(), state_.size(), reinterpret_cast<float*>(to));
    }
    void write(Address from) {
        const std::lock_guard lock(mutex_);
        std::copy_n(reinterpret_cast<const float*>(from), state_.size(), state_.data());
    }

    std::string instruction_set() const { return kernels_->name; }
    Index stripes() const { return static_cast<Index>(sums_.size()); }

  private:
    std::uint64_t sum_of(Index stripe) const {
        return kernels_->stripe_sum(shape_, weights_.data(), stripe, stripes_of(shape_));
    }

    const char* advance(const float* x, float* h, int threads) {
        const std::lock_guard lock(mutex_);
        if (sum_of(stripe_) != sums_[static_cast<std::size_t>(stripe_)]) return "content";
        stripe_ = (stripe_ + 1) % stripes();
        if (std::min(threads, most_threads_) == 1) {
            run(x, 1);
        } else {
            const auto begin = Clock::now();
            const int used = pace_.threads(std::min(threads, most_threads_), begin);
            run(x, used);
            pace_.took(used, begin, Clock::now());
        }
        std::swap(state_, next_);
        const Index top = shape_.B * shape_.H;
        std::copy_n(state_.data() + (shape_.L - 1) * top, top, h);
        return nullptr;
    }

    void run(const float* x, int threads) {
        const bool int8 = packed_.size() > 0;
        kernels_->step({shape_, weights_.data(), int8 ? packed_.data() : nullptr, x, state_.data(), next_.data()},
                       workspace_.data(), threads);
    }

    const StreamKernels* kernels_;
    const StreamShape shape_;
    std::vector<WatchedWeight> watched_;
    std::vector<WeightsOf<float>> weights_;
    std::vector<std::uint64_t> sums_;  // of each stripe, as they were when the stream was opened
    Index stripe_ = 0;                 // the next to be compared
    Index work_ = 0;                   // multiply-adds of a step
    int most_threads_;                 // that are of use
    Pace pace_;
    Floats state_, next_, packed_, workspace_;
    std::mutex mutex_;
};

}  // namespace

void bind_stream(nb::module_& m) {
    nb::class_<Stream>(m, "Stream")
        .def(nb::init<const std::string&, Index, Index, Index, Index, bool, bool, const nb::dict&, const nb::list&>())
        .def("step", &Stream::step)
        .def("read", &Stream::read)
        .def("write", &Stream::write)
        .def_prop_ro("instruction_set", &Stream::instruction_set)
        .def_prop_ro("stripes", &Stream::stripes);
    m.def("stream_instruction_sets", [] {
        std::vector<std::string> names;
        for (const char* name : {"avx512vnni", "avx512bw", "avxvnni", "avx2fma", "portable"})
            if (stream_kernels_for(name)) names.emplace_back(name);
        return names;
    });
}

}  // namespace gatewise
