// CUDA's language on the host: the threads of a block are fibers, one block runs after another.
//
// Barriers and warp shuffles switch fibers, which run in a shuffled order; a barrier that not all threads reach is an
// error, not a deadlock. float16 and bfloat16 are as in CuPy's headers: they convert to float for arithmetic.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <ucontext.h>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static __attribute__((section("shared_memory")))
#define __constant__ static const

using std::isfinite; using std::isinf; using std::isnan; using std::signbit;

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };
static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static const int warpSize = 32;

// -- vectors

#define VECTOR_(type, name) \
    struct alignas(2 * sizeof(type)) name##2 { type x, y; }; \
    struct alignas(sizeof(type) * 4 > 16 ? 16 : sizeof(type) * 4) name##4 { type x, y, z, w; }; \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; } \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
VECTOR_(float, float) VECTOR_(double, double) VECTOR_(int, int) VECTOR_(unsigned, uint)
VECTOR_(unsigned short, ushort)

// -- 16-bit floats

inline uint32_t bits_of_(float v) { uint32_t b; std::memcpy(&b, &v, 4); return b; }
inline float float_of_(uint32_t b) { float v; std::memcpy(&v, &b, 4); return v; }

inline uint16_t to_half_(float v) {
    uint32_t b = bits_of_(v), sign = b >> 16 & 0x8000, a = b & 0x7fffffff;
    if (a > 0x7f800000) return sign | 0x7e00;
    if (a >= 0x477ff000) return sign | 0x7c00;
    if (a < 0x38800000) return sign | (uint16_t)std::nearbyintf(float_of_(a) * 16777216.0f);
    a += 0xfff + (a >> 13 & 1);
    return sign | (a - 0x38000000) >> 13;
}
inline float from_half_(uint16_t h) {
    uint32_t sign = (h & 0x8000u) << 16, e = h >> 10 & 31, m = h & 0x3ff;
    if (e == 31) return float_of_(sign | 0x7f800000 | m << 13);
    if (e == 0) return std::copysign(m / 16777216.0f, float_of_(sign | 0x3f800000));
    return float_of_(sign | (e + 112) << 23 | m << 13);
}
inline uint16_t to_bfloat_(float v) {
    uint32_t b = bits_of_(v);
    if ((b & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return (b + 0x7fff + (b >> 16 & 1)) >> 16;
}
inline float from_bfloat_(uint16_t h) { return float_of_((uint32_t)h << 16); }

#define HALF_(name, to, from) \
    class name { \
        uint16_t data_; \
    public: \
        name() {} \
        name(float v) : data_(to(v)) {} \
        explicit name(bool v) : name(float(v)) {} \
        explicit name(double v) : name(float(v)) {} \
        explicit name(int v) : name(float(v)) {} \
        explicit name(unsigned v) : name(float(v)) {} \
        explicit name(long long v) : name(float(v)) {} \
        explicit name(unsigned long long v) : name(float(v)) {} \
        operator float() const { return from(data_); } \
        name& operator=(const name&) = default; \
        template <typename V> name& operator=(const V& v) { return *this = static_cast<name>(v); } \
        unsigned short to_bits() const { return data_; } \
        static name from_bits(unsigned short v) { name out; out.data_ = v; return out; } \
    };
HALF_(float16, to_half_, from_half_)
HALF_(bfloat16, to_bfloat_, from_bfloat_)

// -- arithmetic that C++ lacks or has in namespace std

template <typename A, typename B> std::common_type_t<A, B> min(A a, B b) { return b < a ? b : a; }
template <typename A, typename B> std::common_type_t<A, B> max(A a, B b) { return a < b ? b : a; }
inline float rsqrtf(float v) { return 1 / std::sqrt(v); }
inline float rsqrt(float v) { return 1 / std::sqrt(v); }
inline double rsqrt(double v) { return 1 / std::sqrt(v); }
#define __expf(v) std::exp(float(v))
#define __logf(v) std::log(float(v))
inline float __fdividef(float a, float b) { return a / b; }
using std::abs; using std::exp; using std::expm1; using std::log; using std::log1p; using std::sqrt; using std::tanh;
using std::erf; using std::erfc; using std::pow; using std::sin; using std::cos; using std::floor; using std::ceil;
using std::fabs; using std::fma; using std::fmax; using std::fmin; using std::copysign; using std::exp2; using std::log2;
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
inline float __int_as_float(int b) { return float_of_((uint32_t)b); }
inline int __float_as_int(float v) { return (int)bits_of_(v); }
inline double __longlong_as_double(long long b) { double v; std::memcpy(&v, &b, 8); return v; }
inline long long __double_as_longlong(double v) { long long b; std::memcpy(&b, &v, 8); return b; }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
inline int __ffs(int v) { return __builtin_ffs(v); }
template <typename V> V __ldg(const V* p) { return *p; }

// -- fibers

extern "C" __attribute__((visibility("hidden"))) char __start_shared_memory[], __stop_shared_memory[];  // the linker knows where the section is
static char nothing_shared_ __attribute__((section("shared_memory"), used));

namespace host {

enum State { READY, AT_WARP, AT_BLOCK, DONE };
struct Fiber { ucontext_t context; State state; };

static std::vector<Fiber> fibers;
static std::vector<char> stacks;
static ucontext_t scheduler;
static int current, predicate;
static uint64_t order = 88172645463325252ull;
static const char* problem;
static void (*body)();
static unsigned char slots[1024][16];
static std::vector<char> dynamic;
static const size_t STACK = 65536;

static void wait(State state) {
    fibers[current].state = state;
    swapcontext(&fibers[current].context, &scheduler);
}
static void enter() {
    body();
    fibers[current].state = DONE;
    swapcontext(&fibers[current].context, &scheduler);
}
static bool release(int from, int to, State at) {  // let the fibers go on if all that are not done have arrived
    bool any = false;
    for (int k = from; k < to; ++k) {
        if (fibers[k].state == DONE) continue;
        if (fibers[k].state != at) return false;
        any = true;
    }
    for (int k = from; k < to; ++k)
        if (fibers[k].state == at) fibers[k].state = READY;
    return any;
}
static void run_block(int n) {
    if (stacks.size() < n * STACK) stacks.resize(n * STACK);
    fibers.resize(n);
    std::vector<int> turn(n);
    for (int k = 0; k < n; ++k) {
        Fiber& f = fibers[k];
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = &stacks[k * STACK];
        f.context.uc_stack.ss_size = STACK;
        f.context.uc_link = &scheduler;
        makecontext(&f.context, enter, 0);
        f.state = READY;
        turn[k] = k;
    }
    while (!problem) {
        for (int k = n - 1; k > 0; --k) {
            order ^= order << 13, order ^= order >> 7, order ^= order << 17;
            std::swap(turn[k], turn[order % (k + 1)]);
        }
        bool ran = false;
        for (int k : turn)
            if (fibers[k].state == READY) {
                ran = true;
                current = k;
                threadIdx = {k % blockDim.x, k / blockDim.x % blockDim.y, k / (blockDim.x * blockDim.y)};
                swapcontext(&scheduler, &fibers[k].context);
            }
        if (ran) {
            for (int k = 0; k < n; k += 32) release(k, std::min(k + 32, n), AT_WARP);
            release(0, n, AT_BLOCK);
            continue;
        }
        for (int k = 0; k < n; ++k)
            if (fibers[k].state != DONE) problem = "a barrier was not reached by all threads";
        return;
    }
}
static const char* launch(const unsigned* grid, const unsigned* block, size_t shared, void (*kernel)()) {
    problem = nullptr;
    body = kernel;
    blockDim = {block[0], block[1], block[2]};
    gridDim = {grid[0], grid[1], grid[2]};
    dynamic.resize(shared + 16);
    if (shared + (__stop_shared_memory - __start_shared_memory - sizeof nothing_shared_) > 48 << 10)
        return "more shared memory, with the arrays declared in the kernel, than the 48 KiB of every GPU";
    for (unsigned z = 0; z < grid[2]; ++z)
        for (unsigned y = 0; y < grid[1]; ++y)
            for (unsigned x = 0; x < grid[0] && !problem; ++x) {
                blockIdx = {x, y, z};
                std::memset(dynamic.data(), 0xff, dynamic.size());  // NaN: nothing is there yet
                std::memset(__start_shared_memory, 0xff, __stop_shared_memory - __start_shared_memory);
                run_block(block[0] * block[1] * block[2]);
            }
    return problem;
}
template <typename V> V exchange(V v, int lane) {
    static_assert(sizeof(V) <= 16, "shuffles move up to 16 bytes");
    std::memcpy(slots[current], &v, sizeof v);
    wait(AT_WARP);
    int from = (current & ~31) + lane;
    if (from >= (int)fibers.size() || fibers[from].state == DONE) problem = "a shuffle reads a thread that is not there";
    else std::memcpy(&v, slots[from], sizeof v);
    wait(AT_WARP);
    return v;
}
inline int lane() { return current % 32; }

}  // namespace host

#define DYNAMIC_SHARED(type, name) \
    type* name = reinterpret_cast<type*>(((uintptr_t)host::dynamic.data() + 15) & ~(uintptr_t)15)

inline void __syncthreads() { host::wait(host::AT_BLOCK); }
inline void __syncwarp(unsigned = ~0u) { host::wait(host::AT_WARP); }
inline void __threadfence() {}
inline void __threadfence_block() {}
template <typename V> V __shfl_sync(unsigned, V v, int lane, int width = 32) {
    int base = host::lane() / width * width;
    return host::exchange(v, base + lane % width);
}
template <typename V> V __shfl_xor_sync(unsigned, V v, int mask, int width = 32) {
    int to = host::lane() ^ mask;
    return host::exchange(v, to / width == host::lane() / width ? to : host::lane());
}
template <typename V> V __shfl_down_sync(unsigned, V v, int delta, int width = 32) {
    int to = host::lane() + delta;
    return host::exchange(v, to / width == host::lane() / width ? to : host::lane());
}
template <typename V> V __shfl_up_sync(unsigned, V v, int delta, int width = 32) {
    int to = host::lane() - delta;
    return host::exchange(v, to >= 0 && to / width == host::lane() / width ? to : host::lane());
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
    unsigned out = 0;
    for (int k = 0; k < 32; ++k)
        if (mask >> k & 1 && __shfl_sync(mask, predicate ? 1 : 0, k)) out |= 1u << k;
    return out & mask;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }
inline int __syncthreads_count(int value) {
    __syncthreads();
    host::predicate = 0;
    __syncthreads();
    host::predicate += value != 0;
    __syncthreads();
    return host::predicate;
}
inline int __syncthreads_or(int value) { return __syncthreads_count(value) != 0; }
inline int __syncthreads_and(int value) { return __syncthreads_count(!value) == 0; }

template <typename V> V atomicAdd(V* p, V v) { V old = *p; *p = V(old + v); return old; }
template <typename V> V atomicMax(V* p, V v) { V old = *p; if (old < v) *p = v; return old; }
template <typename V> V atomicMin(V* p, V v) { V old = *p; if (v < old) *p = v; return old; }
template <typename V> V atomicExch(V* p, V v) { V old = *p; *p = v; return old; }
template <typename V> V atomicCAS(V* p, V compare, V v) { V old = *p; if (old == compare) *p = v; return old; }
template <typename V> V atomicOr(V* p, V v) { V old = *p; *p |= v; return old; }

// -- what CuPy's kernels see of an array

template <typename V> struct Raw_ {
    V* p;
    ptrdiff_t n;
    V& operator[](ptrdiff_t k) const { return p[k]; }
    ptrdiff_t size() const { return n; }
};
struct Indexer_ {
    ptrdiff_t n;
    ptrdiff_t size() const { return n; }
};
