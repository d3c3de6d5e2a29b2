"""A vision-language model as the judge of pairs, asked over HTTP through any endpoint that speaks OpenAI's chat completions."""
