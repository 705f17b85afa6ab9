/* Activations: sigma and sigma' of scale x + shift, and sigma'' of it times another number.

   With the whole number n nearest to y / log 2, and r = y - n log 2, |r| < 0.35,

       e^y = 2^n e^r,    e^r = (D + A) / (D - A) by Pade's approximation of degrees 6 and 6,

   which is off by 2e-19, A being odd in r and D even. tanh u = (1 - e^y) / (1 + e^y), y = -2 |u|,
   and the sigmoid, 1 / (1 + e^y) or e^y / (1 + e^y), y = -|u|, take one division then, and no
   difference of numbers that are nearly equal. The results are within 3.5 units in the last
   place; what is not a number stays so. Nothing branches, so compilers make vectors of it. */

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    double power, even, odd; /* e^y = power (even + odd) / (even - odd) */
} exponential;

/* e^y for -700 <= y <= 0. */
static inline __attribute__((always_inline)) exponential exponential_of(double y)
{
    const double shift = 6755399441055744.0; /* 1.5 2^52: leaves a whole number in the last bits */
    const double whole = y * 1.4426950408889634 + shift, n = whole - shift;
    /* log 2 in two parts, of which n times the first has no error. */
    const double r = (y - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
    const double rr = r * r;
    exponential e;
    uint64_t bits;
    memcpy(&bits, &whole, sizeof bits);
    bits = (bits + 1023) << 52;
    memcpy(&e.power, &bits, sizeof bits);
    e.odd = r * ((42 * rr + 10080) * rr + 332640);
    e.even = ((rr + 840) * rr + 75600) * rr + 665280;
    return e;
}

static inline __attribute__((always_inline)) double tanh_of(double u)
{
    const double size = fabs(u);
    const exponential e = exponential_of(-2 * (size > 20 ? 20 : size));
    const double below = e.even - e.odd;
    const double above = (1 - e.power) * below - 2 * e.power * e.odd;
    return copysign(above / (below + e.power * (e.even + e.odd)), u);
}

static inline __attribute__((always_inline)) double sigmoid_of(double u)
{
    const double size = fabs(u);
    const exponential e = exponential_of(-(size > 700 ? 700 : size));
    const double above = e.power * (e.even + e.odd), below = e.even - e.odd;
    return (u < 0 ? above : below) / (below + above);
}

#define ROWS(name, computed, value_, slope_, bend_)                                              \
    static void name##_rows(long count, double scale, double shift, double *x, double *slope)    \
    {                                                                                            \
        for (long s = 0; s < count; ++s) {                                                       \
            const double u = scale * x[s] + shift, v = computed;                                 \
            x[s] = value_;                                                                       \
            slope[s] = slope_;                                                                   \
        }                                                                                        \
    }                                                                                            \
    static void name##_bend(long count, double scale, double shift, const double *x,             \
                            const double *p, double *out)                                        \
    {                                                                                            \
        for (long s = 0; s < count; ++s) {                                                       \
            const double u = scale * x[s] + shift, v = computed;                                 \
            (void)v; /* sigma'' may be 0 everywhere */                                                                             \
            out[s] = (bend_) * p[s];                                                             \
        }                                                                                        \
    }

ROWS(tanh, tanh_of(u), v, 1 - v * v, -2 * v * (1 - v * v))
ROWS(sigmoid, sigmoid_of(u), v, v * (1 - v), v * (1 - v) * (1 - 2 * v))
ROWS(relu, u < 0 ? 0 : u, v, u > 0 ? 1 : 0, 0.0)
ROWS(linear, u, v, 1, 0.0)

typedef struct {
    void (*rows)(long, double, double, double *, double *);
    void (*bend)(long, double, double, const double *, const double *, double *);
} activation;

static const activation activations[] = {{tanh_rows, tanh_bend},
                                         {sigmoid_rows, sigmoid_bend},
                                         {relu_rows, relu_bend},
                                         {linear_rows, linear_bend}};
