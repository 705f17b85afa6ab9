/* Kernel rows and biases along a few features: what a metric of the controls consists of.

   At a level Psi is [y, k], or [y and then the bias, k]; a kernel is [y, x], a bias [x], a
   coordinate [x, k], and at every node x there is a matrix M. */

#include <stddef.h>

#include "products.h"

#ifndef NAMED /* features_single.c names these functions otherwise */
#define NAMED(name) name
#endif

typedef struct {
    long first, last; /* levels */
    long nodes, rows; /* x, and y */
    long rank;
    gemm_function gemm;
} size;

#define EACH(i, count) for (long i = 0; i < (count); ++i)

/* Psi of a level; with a bias it has one more row than the kernel. */
static const REAL *features(const size *of, const REAL *psi, const REAL *kernel, const REAL *bias,
                            long l)
{
    return psi + l * ((kernel != NULL ? of->rows : 0) + (bias != NULL)) * of->rank;
}

/* y = Psi' (kernel, bias). */
void NAMED(along_features)(const size *of, const REAL *kernel, const REAL *bias,
                           const REAL *psi, REAL *y)
{
    const long n = of->nodes, N = of->rows, R = of->rank;
    for (long l = of->first; l < of->last; ++l) {
        const REAL *at = features(of, psi, kernel, bias, l);
        REAL *to = y + l * n * R;
        if (bias != NULL) {
            const REAL *last = at + (kernel != NULL ? N : 0) * R;
            EACH(x, n) EACH(k, R) to[x * R + k] = bias[l * n + x] * last[k];
        }
        if (kernel != NULL) {
            const matrix rows = {kernel + l * N * n, 1, n}, B = {at, R, 1};
            product(of->gemm, n, R, N, 1, rows, B, bias != NULL, to, R);
        }
    }
}

/* a' b, the lanes' sums added in pairs: in order, one by one, they would wait for each other. */
static inline __attribute__((always_inline)) REAL inner(long R, const REAL *a, const REAL *b)
{
    vec sums = {0};
    long j = 0;
    for (; j + WIDTH <= R; j += WIDTH)
        sums += load(a + j) * load(b + j);
    REAL lanes[WIDTH];
    *(loose *)lanes = sums;
    for (long half = WIDTH / 2; half > 0; half /= 2)
        for (long lane = 0; lane < half; ++lane)
            lanes[lane] += lanes[lane + half];
    for (; j < R; ++j)
        lanes[0] += a[j] * b[j];
    return lanes[0];
}

/* to += M' z, some columns of M at a time. */
static void add_transposed(long R, const REAL *M, const REAL *z, REAL *to)
{
    long k = 0;
    for (; k + WIDTH <= R; k += WIDTH) {
        vec sum = load(to + k);
        EACH(j, R) sum += load(M + j * R + k) * z[j];
        *(loose *)(to + k) = sum;
    }
    EACH(j, R) for (long rest = k; rest < R; ++rest) to[rest] += M[j * R + rest] * z[j];
}

/* z = M y. */
void NAMED(times_matrices)(const size *of, const REAL *M, const REAL *y, REAL *z)
{
    const long R = of->rank;
    for (long i = of->first * of->nodes; i < of->last * of->nodes; ++i) {
        const REAL *m = M + i * R * R;
        EACH(k, R) z[i * R + k] = inner(R, m + k * R, y + i * R);
    }
}

/* (kernel, bias) += Psi (M' z - y); without M, Psi (z - y). room: nodes rank. */
void NAMED(move_along_features)(const size *of, REAL *kernel, REAL *bias, const REAL *psi,
                                const REAL *M, const REAL *z, const REAL *y, REAL *room)
{
    const long n = of->nodes, N = of->rows, R = of->rank;
    for (long l = of->first; l < of->last; ++l) {
        const REAL *at = features(of, psi, kernel, bias, l);
        const REAL *last = at + (kernel != NULL ? N : 0) * R;
        EACH(x, n) {
            const long i = l * n + x;
            REAL *restrict to = room + x * R;
            EACH(k, R) to[k] = (M == NULL ? z[i * R + k] : 0) - y[i * R + k];
            if (M != NULL)
                add_transposed(R, M + i * R * R, z + i * R, to);
            if (bias != NULL)
                EACH(k, R) bias[l * n + x] += to[k] * last[k];
        }
        if (kernel != NULL) {
            const matrix A = {at, R, 1}, change = {room, 1, R};
            product(of->gemm, N, n, R, 1, A, change, 1, kernel + l * N * n, n);
        }
    }
}
