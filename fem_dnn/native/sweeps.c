/* Sweeps over the layers of explicit schemes with one stage, on one rank (theory.md, sections 1, 3).

   Arrays are [level, node, sample]; samples are next to each other, and a sweep may be of some of
   them. Kernels are [level, y, x] in L2-orthonormal coordinates: with omega the level's weight in
   depth and h_x the node's in width, a(x, y) = kernel / sqrt(omega h_x h_y). Compiled with REAL as
   the type of numbers. */

#include <stddef.h>

#include "products.h"

typedef struct {
    REAL *at; /* NULL: there is none */
    long level, row;
} array;

typedef struct {
    long layers, nodes, samples;
    const REAL *tau;     /* thickness of every slab */
    const REAL *inverse; /* 1 / sqrt(omega) of every level */
    const REAL *root;    /* sqrt(h) at the nodes; NULL where all are equal, and cancel */
    gemm_function gemm;
} network;

#define AT(a, l, i) ((a).at + (l) * (a).level + (i) * (a).row)
#define EACH_NODE for (long x = 0; x < net->nodes; ++x)
#define EACH_SAMPLE for (long s = 0; s < net->samples; ++s)

/* What K of a level is multiplied by at a node when its coefficients have been. */
static inline REAL factor(const network *net, long l, long x)
{
    return net->root == NULL ? net->inverse[l] : net->inverse[l] / net->root[x];
}

/* sqrt(h) f at a level, in `room` where that is another than f. */
static matrix weighted(const network *net, long l, array f, REAL *room)
{
    matrix values = {AT(f, l, 0), f.row, 1};
    if (net->root != NULL) {
        EACH_NODE EACH_SAMPLE room[x * net->samples + s] = net->root[x] * values.at[x * f.row + s];
        values = (matrix){room, net->samples, 1};
    }
    return values;
}

/* sum_y kernel(y, x) sqrt(h_y) f(y), put into `out` or added to it; `room` is for sqrt(h) f. */
static void forward(const network *net, const REAL *kernel, long l, array f, int add, REAL *room,
                    REAL *out)
{
    const long N = net->nodes, S = net->samples;
    const matrix transposed = {kernel + l * N * N, 1, N};
    product(net->gemm, N, S, N, 1, transposed, weighted(net, l, f, room), add, out, S);
}

/* sum_x kernel(y, x) q(x), where q has been multiplied by sqrt(h) already. */
static void backward(const network *net, const REAL *kernel, long l, const REAL *q, long row,
                     int add, REAL *out)
{
    const long N = net->nodes, S = net->samples;
    const matrix A = {kernel + l * N * N, N, 1}, B = {q, row, 1};
    product(net->gemm, N, S, N, 1, A, B, add, out, S);
}

static void clear(const network *net, REAL *out)
{
    for (long i = 0; i < net->nodes * net->samples; ++i)
        out[i] = 0;
}

/* df_{n+1} = df_n + tau (sigma'(u) du + r), du = K df + dK f + db; df_0 is given.

   tracked, where wanted: df_n + inside (df_{n+1} - df_n). room: 2 nodes samples. */
void tangent_sweep(const network *net, const REAL *kernel, const REAL *dkernel, const REAL *dbias,
                   array f, array slope, array source, array df, array du, array tracked,
                   REAL inside, REAL *room)
{
    REAL *sum = room + net->nodes * net->samples;
    for (long n = 0; n < net->layers; ++n) {
        if (dkernel != NULL)
            forward(net, dkernel, n, f, 0, room, sum);
        if (kernel != NULL)
            forward(net, kernel, n, df, dkernel != NULL, room, sum);
        if (dkernel == NULL && kernel == NULL)
            clear(net, sum);
        EACH_NODE {
            const REAL scale = factor(net, n, x), tau = net->tau[n];
            const REAL shift = dbias == NULL ? 0 : dbias[n * net->nodes + x];
            const REAL *restrict of = AT(slope, n, x), *restrict old = AT(df, n, x);
            const REAL *restrict in = sum + x * net->samples;
            REAL *restrict u = AT(du, n, x), *restrict next = AT(df, n + 1, x);
            if (source.at == NULL) {
                EACH_SAMPLE {
                    u[s] = scale * in[s] + shift;
                    next[s] = old[s] + tau * (of[s] * u[s]);
                }
            } else {
                const REAL *restrict r = AT(source, n, x);
                EACH_SAMPLE {
                    u[s] = scale * in[s] + shift;
                    next[s] = old[s] + tau * (of[s] * u[s] + r[s]);
                }
            }
            if (tracked.at != NULL) {
                REAL *restrict between = AT(tracked, n, x);
                EACH_SAMPLE between[s] = old[s] + inside * (next[s] - old[s]);
            }
        }
    }
}

/* p_n = p_{n+1} + tau (K' q + weight r), q = sigma'(u) (P + source), P = p_{n+1} + tau fed r.

   p_N is given; P + source is kept where `stages` is. room: 2 nodes samples. */
void adjoint_sweep(const network *net, const REAL *kernel, array slope, array residuals,
                   array source, array p, array stages, REAL fed, REAL weight, REAL *room)
{
    const long S = net->samples;
    REAL *q = room, *sum = room + net->nodes * S;
    for (long n = net->layers - 1; n >= 0; --n) {
        const REAL tau = net->tau[n];
        EACH_NODE {
            const REAL scale = net->root == NULL ? 1 : net->root[x];
            const REAL *restrict of = AT(slope, n, x), *restrict end = AT(p, n + 1, x);
            REAL *restrict to = q + x * S;
            if (stages.at == NULL) {
                EACH_SAMPLE to[s] = scale * (of[s] * end[s]);
                continue;
            }
            REAL *restrict P = AT(stages, n, x);
            EACH_SAMPLE P[s] = end[s];
            if (residuals.at != NULL) {
                const REAL *restrict r = AT(residuals, n, x);
                EACH_SAMPLE P[s] += tau * fed * r[s];
            }
            if (source.at != NULL) {
                const REAL *restrict r = AT(source, n, x);
                EACH_SAMPLE P[s] += r[s];
            }
            EACH_SAMPLE to[s] = scale * (of[s] * P[s]);
        }
        if (kernel != NULL)
            backward(net, kernel, n, q, S, 0, sum);
        else
            clear(net, sum);
        EACH_NODE {
            const REAL scale = tau * factor(net, n, x);
            const REAL *restrict in = sum + x * S, *restrict end = AT(p, n + 1, x);
            REAL *restrict to = AT(p, n, x);
            EACH_SAMPLE to[s] = end[s] + scale * in[s];
            if (residuals.at != NULL) {
                const REAL *restrict r = AT(residuals, n, x);
                EACH_SAMPLE to[s] += tau * weight * r[s];
            }
        }
    }
}

/* dp_n = dp_{n+1} + tau (K' dq + dK' q + weight dr), dq = sigma'(u) dP + sigma''(u) p du.

   dq takes the place of du; dp is given at the end, contiguous, and overwritten. q = sigma'(u) P.
   room: 3 nodes samples. */
void second_adjoint_sweep(const network *net, const REAL *kernel, const REAL *dkernel, array slope,
                          array bend, array P, array residuals, array du, REAL *dp, REAL fed,
                          REAL weight, REAL *room)
{
    const long S = net->samples;
    REAL *q = room, *dq = q + net->nodes * S, *sum = dq + net->nodes * S;
    for (long n = net->layers - 1; n >= 0; --n) {
        const REAL tau = net->tau[n];
        EACH_NODE {
            const REAL root = net->root == NULL ? 1 : net->root[x];
            const REAL *restrict of = AT(slope, n, x), *restrict bent = AT(bend, n, x);
            const REAL *restrict known = AT(P, n, x), *restrict end = dp + x * S;
            REAL *restrict change = AT(du, n, x), *restrict scaled = dq + x * S;
            if (residuals.at == NULL) {
                EACH_SAMPLE change[s] = of[s] * end[s] + bent[s] * change[s];
            } else {
                const REAL *restrict r = AT(residuals, n, x);
                EACH_SAMPLE change[s] = of[s] * (end[s] + tau * fed * r[s]) + bent[s] * change[s];
            }
            if (dkernel != NULL) {
                REAL *restrict to = q + x * S;
                EACH_SAMPLE to[s] = root * (of[s] * known[s]);
            }
            if (net->root != NULL)
                EACH_SAMPLE scaled[s] = root * change[s];
        }
        if (kernel == NULL && dkernel == NULL)
            clear(net, sum);
        if (dkernel != NULL)
            backward(net, dkernel, n, q, S, 0, sum);
        if (kernel != NULL) {
            const int here = net->root == NULL;
            backward(net, kernel, n, here ? AT(du, n, 0) : dq, here ? du.row : S, dkernel != NULL,
                     sum);
        }
        EACH_NODE {
            const REAL scale = tau * factor(net, n, x);
            const REAL *restrict in = sum + x * S;
            REAL *restrict to = dp + x * S;
            EACH_SAMPLE to[s] += scale * in[s];
            if (residuals.at != NULL) {
                const REAL *restrict r = AT(residuals, n, x);
                EACH_SAMPLE to[s] += tau * weight * r[s];
            }
        }
    }
}

/* sum over samples, and over pairs of q = left times right and f, of w q(x) sqrt(h_y) f(y) scale(x)
   into the kernel, and with the first pair's q of w q(x) scale(x) into the bias, at some levels.

   scale: sqrt(omega h_x), [level, x]. common: sqrt(h) where all are equal.
   room: 2 nodes samples. */
void sums_over_samples(const network *net, long first, long last, long pairs, const array *left,
                       const array *right, const array *f, const REAL *w, const REAL *scale,
                       REAL common, REAL *kernel, REAL *bias, REAL *room)
{
    const long N = net->nodes, S = net->samples;
    REAL *values = room + N * S;
    const matrix q = {room, 1, S};
    for (long l = first; l < last; ++l)
        for (long k = 0; k < (kernel == NULL ? 1 : pairs); ++k) {
            EACH_NODE {
                const REAL *restrict a = AT(left[k], l, x), by = scale[l * N + x];
                REAL *restrict to = room + x * S;
                if (right[k].at == NULL) {
                    EACH_SAMPLE to[s] = by * w[s] * a[s];
                } else {
                    const REAL *restrict b = AT(right[k], l, x);
                    EACH_SAMPLE to[s] = by * w[s] * (a[s] * b[s]);
                }
                if (k == 0 && bias != NULL) {
                    REAL sum = 0;
                    EACH_SAMPLE sum += to[s];
                    bias[l * N + x] = sum;
                }
            }
            if (kernel != NULL)
                product(net->gemm, N, N, S, common, weighted(net, l, f[k], values), q, k > 0,
                        kernel + l * N * N, N);
        }
}

#ifdef WITH_ACTIVATIONS
#include "activations.h"

/* f_{n+1} = f_n + tau sigma(u), u = K f_n + b, and sigma'(u); f_0 is given.

   tracked, where wanted: f_n + inside (f_{n+1} - f_n). room: 2 nodes samples. */
void state_sweep(const network *net, const REAL *kernel, const REAL *bias, int which, array f,
                 array slope, array tracked, REAL inside, REAL *room)
{
    REAL *sum = room + net->nodes * net->samples;
    for (long n = 0; n < net->layers; ++n) {
        if (kernel != NULL)
            forward(net, kernel, n, f, 0, room, sum);
        else
            clear(net, sum);
        EACH_NODE {
            REAL *restrict value = sum + x * net->samples, *restrict next = AT(f, n + 1, x);
            const REAL *restrict old = AT(f, n, x), tau = net->tau[n];
            const REAL shift = bias == NULL ? 0 : bias[n * net->nodes + x];
            activations[which].rows(net->samples, factor(net, n, x), shift, value, AT(slope, n, x));
            EACH_SAMPLE next[s] = old[s] + tau * value[s];
            if (tracked.at != NULL) {
                REAL *restrict between = AT(tracked, n, x);
                EACH_SAMPLE between[s] = old[s] + tau * inside * value[s];
            }
        }
    }
}

/* sigma''(K f + b) p at some levels. room: 2 nodes samples. */
void curvature_sweep(const network *net, long first, long last, const REAL *kernel,
                     const REAL *bias, int which, array f, array p, array out, REAL *room)
{
    REAL *sum = room + net->nodes * net->samples;
    for (long l = first; l < last; ++l) {
        if (kernel != NULL)
            forward(net, kernel, l, f, 0, room, sum);
        else
            clear(net, sum);
        EACH_NODE {
            const REAL shift = bias == NULL ? 0 : bias[l * net->nodes + x];
            activations[which].bend(net->samples, factor(net, l, x), shift, sum + x * net->samples,
                                    AT(p, l, x), AT(out, l, x));
        }
    }
}
#endif
