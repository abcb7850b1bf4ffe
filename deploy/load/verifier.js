// Open-loop load on POST /v1/score with k6, from the workload file of `e2h bench`:
//
//     k6 run -e URL=http://localhost:8102 -e RATE=20 -e DURATION=60s deploy/load/verifier.js
//
// Environment: URL, RATE (requests a second), DURATION, SOLUTIONS of each request (8), SLO_MS (1000), WORKLOAD (a JSONL file,
// relative to this one), E2H_API_KEY. k6 starts requests at the rate whatever becomes of others, but counts latency from
// when it sent them; `dropped_iterations` are those that it could not send in time.
import http from 'k6/http';
import { check } from 'k6';
import exec from 'k6/execution';
import { Rate, Trend } from 'k6/metrics';

const path = __ENV.WORKLOAD || '../../services/cli/bench/workload.jsonl';
const items = open(path).split('\n').filter((line) => line.trim()).map((line) => JSON.parse(line));
const solutions = Number(__ENV.SOLUTIONS || 8);
const slo = Number(__ENV.SLO_MS || 1000);
const rate = Number(__ENV.RATE || 10);

const good = new Rate('good');
const parts = ['tokenize', 'queue', 'inference'].map((name) => [`X-${name[0].toUpperCase()}${name.slice(1)}-Ms`, new Trend(name, true)]);

export const options = {
  scenarios: {
    open: {
      executor: 'constant-arrival-rate',
      rate,
      timeUnit: '1s',
      duration: __ENV.DURATION || '60s',
      preAllocatedVUs: Math.max(10, Math.ceil(rate * 2)),
      maxVUs: Math.max(100, Math.ceil(rate * 30)),
    },
  },
  summaryTrendStats: ['med', 'p(90)', 'p(99)', 'p(99.9)', 'max'],
};

export function setup() {
  return { run: String(Date.now() % 1e8).padStart(8, '0') };
}

// Each time under a number of its own: no cache knows it from an earlier request.
export function body(run, number) {
  const item = items[number % items.length];
  return {
    problem: `(${run}${number}) ${item.problem}`,
    solutions: item.solutions.slice(0, solutions).map((text) => ({ text })),
  };
}

export default function (data) {
  const headers = { 'content-type': 'application/json' };
  if (__ENV.E2H_API_KEY) headers.authorization = `Bearer ${__ENV.E2H_API_KEY}`;
  const request = JSON.stringify(body(data.run, exec.scenario.iterationInTest));
  const answer = http.post(`${__ENV.URL || 'http://localhost:8102'}/v1/score`, request, { headers });
  good.add(answer.status === 200 && answer.timings.duration <= slo);
  for (const [header, trend] of parts) {
    if (answer.headers[header] !== undefined) trend.add(Number(answer.headers[header]));
  }
  check(answer, { 'answered, or told that it is full': (r) => r.status === 200 || r.status === 429 });
}
