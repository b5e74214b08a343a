// What comes first in a search: headings that hold the words asked for, then pages that answer a question.
var Scorer = {
  score: ([page, title, anchor, description, score, file, kind]) => {
    const answers = /^(gotchas$|(howto|errors)\/(?!index))/.test(page) ? 3 : 0;
    return score + answers + (kind === "title" ? 20 : 0);
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
