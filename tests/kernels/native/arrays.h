// Arrays (T, B, n) of numbers in memory of exactly their size, in every layout that the kernels allow.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <type_traits>
#include <vector>

#include "recurrence.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace gatewise {

// Random numbers that are the same with every standard library.
class Random {
  public:
    explicit Random(std::uint32_t seed) : bits_(seed) {}
    Index below(Index count) { return static_cast<Index>(bits_() % static_cast<std::uint32_t>(count)); }
    bool one_in(Index count) { return below(count) == 0; }
    float uniform() { return static_cast<float>(bits_() >> 8) * 0x1p-23f - 1.0f; }  // in [-1, 1)

  private:
    std::mt19937 bits_;
};

// A NaN that no kernel computes: what memory holds before it is written.
template <typename Number>
constexpr Number untouched();
template <>
constexpr std::uint32_t untouched<std::uint32_t>() { return 0x7fc0beef; }
template <>
constexpr std::uint16_t untouched<std::uint16_t>() { return 0x7fdb; }

inline double widened(float value) { return value; }
inline double widened(Bfloat16 value) {
    const std::uint32_t bits = std::uint32_t{value.bits} << 16;
    float wide;
    std::memcpy(&wide, &bits, sizeof wide);
    return wide;
}

inline void assign(float& to, float value) { to = value; }
inline void assign(Bfloat16& to, float value) {  // rounds to nearest, ties to even
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    to.bits = static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Memory that ends where a page begins that cannot be touched, whatever instruction tries to; vector instructions under
// a mask and those on tiles are not seen by AddressSanitizer. What lies before it is checked for writes, and by
// AddressSanitizer.
template <typename Number>
class Guarded {
  public:
    explicit Guarded(Index size) : size_(size) {
        const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE)), bytes = size * sizeof(Number);
        usable_ = (bytes + least_head + page - 1) / page * page;
        mapped_ = usable_ + page;
        void* map = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (map == MAP_FAILED || mprotect(static_cast<char*>(map) + usable_, page, PROT_NONE) != 0) {
            std::perror("no guarded memory");
            std::exit(2);
        }
        base_ = static_cast<unsigned char*>(map);
        head_ = usable_ - bytes;
        std::memset(base_, head_value, head_);
#ifdef __SANITIZE_ADDRESS__
        __asan_poison_memory_region(base_, head_);
#endif
    }
    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;
    ~Guarded() {
#ifdef __SANITIZE_ADDRESS__
        __asan_unpoison_memory_region(base_, head_);
#endif
        for (std::size_t i = 0; i < head_; ++i)
            if (base_[i] != head_value) {
                std::fprintf(stderr, "%zu bytes before an array of %td numbers were written\n", head_ - i, size_);
                std::abort();
            }
        munmap(base_, mapped_);
    }

    Number* data() const { return reinterpret_cast<Number*>(base_ + head_); }
    Index size() const { return size_; }
    void fill(float value) const {
        for (Index i = 0; i < size_; ++i) assign(data()[i], value);
    }
    void forbid_writing() const { mprotect(base_, usable_, PROT_READ); }

  private:
    static constexpr std::size_t least_head = 64;
    static constexpr unsigned char head_value = 0xa5;
    unsigned char* base_;
    std::size_t usable_, mapped_, head_;
    Index size_;
};

// Where the elements of an array (T, B, n) lie.
struct Layout {
    Index T, B, n, step, row;

    static Layout contiguous(Index T, Index B, Index n) { return {T, B, n, B * n, n}; }

    // With gaps between the rows or not, the steps outermost or the rows, forwards or backwards in time; and all rows
    // being the same one, where that is allowed.
    static Layout any(Index T, Index B, Index n, Random& random, bool may_share, bool may_turn = true) {
        const Index width = n + (random.one_in(2) ? 0 : 1 + random.below(5)), gap = random.one_in(2) ? 0 : 3;
        Layout layout{T, B, n, B * width + gap, width};
        if (random.one_in(2)) layout = {T, B, n, width, T * width + gap};
        if (may_turn && random.one_in(2)) layout.step = -layout.step;
        if (may_share && random.one_in(8)) layout.row = 0;
        return layout;
    }

    Index first() const { return step < 0 ? -step * (T - 1) : 0; }
    Index size() const { return std::abs(step) * (T - 1) + row * (B - 1) + n; }

    template <typename Body>
    void for_each(const Body& body) const {  // body(place in memory), in the order of (t, b, i)
        for (Index t = 0; t < T; ++t)
            for (Index b = 0; b < B; ++b)
                for (Index i = 0; i < n; ++i) body(first() + t * step + b * row + i);
    }
};

// An array (T, B, n), or a null pointer in its place.
template <typename Number>
class Array {
  public:
    explicit Array(const Layout& layout, bool present = true)
        : layout_(layout), present_(present), memory_(layout.size()) {
        for (Index i = 0; i < memory_.size(); ++i) std::memcpy(memory_.data() + i, &nothing, sizeof nothing);
    }

    bool present() const { return present_; }
    Number* data() const { return present_ ? memory_.data() + layout_.first() : nullptr; }  // of (0, 0, 0)
    template <typename T>
    Sequence<T> sequence() const {
        return {data(), layout_.step, layout_.row};
    }
    void forbid_writing() const { memory_.forbid_writing(); }

    template <typename Value>
    void set(const Value& value) {
        layout_.for_each([&](Index place) { assign(memory_.data()[place], value()); });
        forbid_writing();
    }

    // The elements in the order of (t, b, i); zeros, if the array is not present.
    std::vector<double> values() const {
        std::vector<double> all;
        layout_.for_each([&](Index place) { all.push_back(present_ ? widened(memory_.data()[place]) : 0.0); });
        return all;
    }

    // Whether nothing was written in the gaps, and where `expected`, in the order of (t, b, i), is NaN.
    bool untouched_beside(const std::vector<double>& expected) const {
        std::vector<bool> inside(static_cast<std::size_t>(memory_.size()));
        std::size_t next = 0;
        layout_.for_each([&](Index place) { inside[static_cast<std::size_t>(place)] = !std::isnan(expected[next++]); });
        for (Index i = 0; i < memory_.size(); ++i)
            if (!inside[static_cast<std::size_t>(i)] && std::memcmp(memory_.data() + i, &nothing, sizeof nothing) != 0)
                return false;
        return true;
    }

    bool same_bits(const Array& other) const {
        return std::memcmp(memory_.data(), other.memory_.data(), memory_.size() * sizeof(Number)) == 0;
    }

  private:
    using Bits = std::conditional_t<sizeof(Number) == 4, std::uint32_t, std::uint16_t>;
    static constexpr Bits nothing = gatewise::untouched<Bits>();
    Layout layout_;
    bool present_;
    Guarded<Number> memory_;
};

}  // namespace gatewise
